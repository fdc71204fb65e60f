"""Where a decoder's own positive queries lie, and where those that auxiliary heads lend (Zong et al. 2023, figure 6).

The article compares the customized positive queries with the original positive and the original negative ones and finds
the positives nearer to each other. Its code is not published. Definitions taken here: a query's place is the center of
its reference before the first decoder layer, in shares of the image's width and height; distances are Euclidean in
these shares, divided by the square root of 2, so that 1 is the whole diagonal; the distance of two sets is the mean
over all pairs of one image (``pairs``), over each lent query's nearest (``nearest``), or over pairs of the same object
(``same_object``), and then over the images that have both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from poise.detectors.query import QueryDetector
from poise.structures import Assignment, Batch, Match, Progress, StepOutput

DECODER = "queries"


class NoQueries(ValueError):
    """The model has no queries."""


@dataclass(frozen=True)
class Places:
    """Queries of one kind on one image."""

    centers: Tensor  # (n,2) x, y in shares of the image
    objects: Tensor  # (n,) int64, the object of each; -1 of negatives


@dataclass(frozen=True)
class QueryPlaces:
    """All queries of one image."""

    positive: Places  # the decoder's own, matched with an object
    negative: Places  # its others
    lent: dict[str, Places]  # positives that each head lends

    def to_dict(self) -> dict[str, Any]:
        """Numbers that JSON holds: [x, y, object] of each query."""
        kinds = {"positive": self.positive, "negative": self.negative}
        return {
            **{name: _listed(places) for name, places in kinds.items()},
            "lent": {name: _listed(places) for name, places in self.lent.items()},
        }


def _listed(places: Places) -> list[list[float]]:
    return [
        [round(x, 4), round(y, 4), int(o)]
        for (x, y), o in zip(places.centers.tolist(), places.objects.tolist(), strict=True)
    ]


@torch.no_grad()
def query_places(
    network: nn.Module, batch: Batch, progress: Progress, seed: int = 0, name: str = "this model"
) -> list[QueryPlaces]:
    """Where the queries of each image lie, in a training step with this seed.

    Raises:
        NoQueries: not a model of the DETR family.
    """
    if not isinstance(network, QueryDetector):
        raise NoQueries(f"'{name}' has no queries: take a model of the DETR family (poise models '*detr*', '*dino*')")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        output: StepOutput = network(batch, progress)
    own = output.matches[DECODER]
    heads = [] if network.collaboration is None else [lender.name for lender in network.collaboration.lenders]
    return [
        QueryPlaces(
            _places(own, image, batch, positive=True),
            _places(own, image, batch, positive=False),
            {str(head): _places(output.matches[f"{head}/{DECODER}"], image, batch, True) for head in heads},
        )
        for image in range(len(batch.pixels))
    ]


def _places(match: Match, image: int, batch: Batch, positive: bool) -> Places:
    told = match.assignment
    assert isinstance(told, Assignment)
    extent = batch.truth.sizes[image].flip(0)
    priors = match.predictions.priors
    centers = priors.centers.expand(len(batch.pixels), -1, -1)[image] / extent
    chosen = told.positive[image] if positive else told.negative[image]
    objects = torch.where(told.positive[image], told.index[image], -1)
    return Places(centers[chosen].float().cpu(), objects[chosen].cpu())


def distances(lent: Places, own: Places) -> dict[str, float | None]:
    """Distances of two sets of queries of one image, in [0,1]; None where a mean has nothing to be taken over."""
    apart = torch.cdist(lent.centers.double(), own.centers.double()) / math.sqrt(2)
    same = lent.objects[:, None] == own.objects[None]
    return {
        "pairs": float(apart.mean()) if apart.numel() else None,
        "nearest": float(apart.amin(1).mean()) if apart.numel() else None,
        "same_object": float(apart[same].mean()) if same.any() else None,
    }


@dataclass
class QueryDistances:
    """Distances of the images that were added, from each head's lent queries to the decoder's own."""

    images: int = 0
    without_objects: int = 0
    counts: dict[str, int] = field(default_factory=dict)  # queries of each kind in all images
    rows: list[dict[str, Any]] = field(default_factory=list)  # of each image, head and kind of own queries

    def add(self, name: str, places: QueryPlaces) -> None:
        """Count one image."""
        self.images += 1
        kinds = {"positive": places.positive, "negative": places.negative}
        for kind, one in [*kinds.items(), *places.lent.items()]:
            self.counts[kind] = self.counts.get(kind, 0) + len(one.centers)
        for head, lent in places.lent.items():
            for kind, own in kinds.items():
                self.rows.append({"image": name, "head": head, "own": kind, **distances(lent, own)})

    def mean(self, head: str, own: str) -> Mapping[str, float | None]:
        """Means over images."""
        rows = [row for row in self.rows if row["head"] == head and row["own"] == own]
        known = {
            name: [row[name] for row in rows if row[name] is not None] for name in ("pairs", "nearest", "same_object")
        }
        return {name: sum(values) / len(values) if values else None for name, values in known.items()}

    def to_dict(self) -> dict[str, Any]:
        """Queries an image of each kind, and the mean distances of each head's lent queries to both kinds."""
        heads = list(dict.fromkeys(row["head"] for row in self.rows))
        return {
            "images": self.images,
            "without_objects": self.without_objects,
            "queries_per_image": {kind: n / self.images for kind, n in self.counts.items()} if self.images else {},
            "distance": {
                head: {f"to_{own}": dict(self.mean(head, own)) for own in ("positive", "negative")} for head in heads
            },
        }
