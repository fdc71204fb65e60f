"""Distances between customized positive queries and the decoder's own queries (Zong et al. 2023, figure 6).

The article compares the customized positive queries of the auxiliary heads with the original positive and the original
negative queries, and finds the positives nearer to each other. Its code is not published. Definitions used here: the
position of a query is the center of its reference before the first decoder layer, normalized by the width and height
of the image. Distances are Euclidean in normalized coordinates, divided by the square root of 2, so that 1 is the
diagonal of the image. The distance between two sets is the mean over all pairs of one image (``all_pairs``), over the
nearest query of each auxiliary query (``nearest``), or over pairs of the same object (``same_object``); the result is
the mean over the images that have both sets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from poise.detectors.parts import is_query_detector
from poise.structures import Batch, Match, Progress, StepOutput

DECODER_STAGE = "queries"
MEASURES = ("all_pairs", "nearest", "same_object")


class NoQueries(ValueError):
    """The model has no queries."""


@dataclass(frozen=True)
class QueryCenters:
    """Queries of one kind on one image."""

    centers: Tensor  # (n,2) normalized x, y
    objects: Tensor  # (n,) int64, index of the assigned object; -1 of negatives


@dataclass(frozen=True)
class ImageQueries:
    """All queries of one image."""

    positive: QueryCenters  # queries of the decoder that are matched with an object
    negative: QueryCenters  # the other queries of the decoder
    auxiliary: dict[str, QueryCenters]  # customized positive queries by auxiliary head

    def to_dict(self) -> dict[str, object]:
        """Numbers for JSON: [x, y, object] of each query."""
        kinds = {"positive": self.positive, "negative": self.negative}
        return {
            **{kind: _to_list(queries) for kind, queries in kinds.items()},
            "auxiliary": {head: _to_list(queries) for head, queries in self.auxiliary.items()},
        }


def _to_list(queries: QueryCenters) -> list[list[float]]:
    return [
        [round(x, 4), round(y, 4), int(o)]
        for (x, y), o in zip(queries.centers.tolist(), queries.objects.tolist(), strict=True)
    ]


@torch.no_grad()
def image_queries(
    network: nn.Module, batch: Batch, progress: Progress, seed: int = 0, *, name: str = "this model"
) -> list[ImageQueries]:
    """Queries of each image in a training step with this seed.

    Raises:
        NoQueries: not a model of the DETR family.
    """
    if not is_query_detector(network):
        raise NoQueries(f"'{name}' has no queries: take a model of the DETR family (poise models '*detr*', '*dino*')")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        output: StepOutput = network(batch, progress)
    decoder = output.matches[DECODER_STAGE]
    heads = [] if network.collaboration is None else list(network.collaboration.names)
    return [
        ImageQueries(
            _select(decoder, image, batch, positive=True),
            _select(decoder, image, batch, positive=False),
            {str(head): _select(output.matches[f"{head}/{DECODER_STAGE}"], image, batch, True) for head in heads},
        )
        for image in range(len(batch.pixels))
    ]


def _select(match: Match, image: int, batch: Batch, positive: bool) -> QueryCenters:
    assignment = match.assignment.hard()
    extent = batch.truth.sizes[image].flip(0)
    priors = match.predictions.priors
    centers = priors.centers.expand(len(batch.pixels), -1, -1)[image] / extent
    mask = assignment.positive[image] if positive else assignment.negative[image]
    objects = torch.where(assignment.positive[image], assignment.index[image], -1)
    return QueryCenters(centers[mask].float().cpu(), objects[mask].cpu())


def query_distances(auxiliary: QueryCenters, decoder: QueryCenters) -> dict[str, float | None]:
    """Distances between two sets of queries of one image, in [0,1]; None where there is nothing to average."""
    distance = torch.cdist(auxiliary.centers.double(), decoder.centers.double()) / math.sqrt(2)
    same = auxiliary.objects[:, None] == decoder.objects[None]
    return {
        "all_pairs": float(distance.mean()) if distance.numel() else None,
        "nearest": float(distance.amin(1).mean()) if distance.numel() else None,
        "same_object": float(distance[same].mean()) if same.any() else None,
    }


@dataclass
class QueryDistances:
    """Distances from the auxiliary queries of each head to the decoder's queries, accumulated over images."""

    images: int = 0
    without_objects: int = 0
    counts: dict[str, int] = field(default_factory=dict)  # queries of each kind in all images
    rows: list[dict[str, Any]] = field(default_factory=list)  # by image, head and kind of decoder query

    def add(self, name: str, queries: ImageQueries) -> None:
        """Add one image."""
        self.images += 1
        kinds = {"positive": queries.positive, "negative": queries.negative}
        for kind, one in [*kinds.items(), *queries.auxiliary.items()]:
            self.counts[kind] = self.counts.get(kind, 0) + len(one.centers)
        for head, auxiliary in queries.auxiliary.items():
            for kind, decoder in kinds.items():
                self.rows.append(
                    {"image": name, "head": head, "decoder_queries": kind, **query_distances(auxiliary, decoder)}
                )

    def mean(self, head: str, kind: str) -> Mapping[str, float | None]:
        """Means over images of the distances from a head's queries to the decoder's queries of this kind."""
        rows = [row for row in self.rows if row["head"] == head and row["decoder_queries"] == kind]
        defined = {name: [row[name] for row in rows if row[name] is not None] for name in MEASURES}
        return {name: sum(values) / len(values) if values else None for name, values in defined.items()}

    def to_dict(self) -> dict[str, Any]:
        """Queries of each kind per image, and the mean distances of each head to both kinds of decoder queries."""
        heads = list(dict.fromkeys(row["head"] for row in self.rows))
        return {
            "images": self.images,
            "without_objects": self.without_objects,
            "queries_per_image": {kind: n / self.images for kind, n in self.counts.items()} if self.images else {},
            "distance": {
                head: {f"to_{kind}": dict(self.mean(head, kind)) for kind in ("positive", "negative")} for head in heads
            },
        }
