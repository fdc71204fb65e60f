"""How much the matching changes between two states of a training (DN-DETR: Li et al. 2022, section 3.1).

Of each place (a query, or a place of a dense head) V is the object that it was matched with, or -1. The instability
between two epochs is the number of places whose V differs, averaged over images.

Queries that are chosen from the encoder's tokens have no identity of their own: by *rank* the n-th best token is the
n-th query, whichever token it is; by *token* the same tokens are compared. Learned queries are compared by rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from poise.detectors.query import QueryDetector
from poise.nn.transformer.queries import Queries
from poise.structures import Assignment, Batch, PairWeights, Progress, QueryPredictions, RegionPredictions, StepOutput

MATCHING = "queries"  # the stage whose places are a decoder's queries
BY_TOKEN = "queries by token"


def matched_objects(assignment: Assignment | PairWeights) -> Tensor:
    """V of each place: the object that it answers to, -1 where to none, (B,N) int64."""
    hard = assignment if isinstance(assignment, Assignment) else assignment.hard()
    return torch.where(hard.positive, hard.index, -1)


def by_token(matched: Tensor, tokens: Tensor, count: int) -> Tensor:
    """V of each of ``count`` tokens, (B,count), of queries (B,Q) that were made from ``tokens`` (B,Q)."""
    return torch.full((len(matched), count), -1, device=matched.device).scatter(1, tokens, matched)


def changes(before: Tensor, after: Tensor) -> Tensor:
    """Places whose object is another than before, (B,) int64, of two (B,N)."""
    return (before != after).sum(1)


def moved_objects(before: Tensor, after: Tensor, count: int) -> int:
    """How many of ``count`` objects of one image are matched with another set of places (N,) than before."""
    objects = torch.arange(count, device=before.device)[:, None]
    return int(((before == objects) != (after == objects)).any(1).sum())


@torch.no_grad()
def matching_of(network: nn.Module, batch: Batch, progress: Progress, seed: int = 0) -> dict[str, Tensor]:
    """V (B,N) of each stage whose places keep their identity, on the CPU.

    Left out are regions and queries that a head lends, whose places differ from one state of the network to the next.
    """
    with _chosen_tokens(network) as told, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        output: StepOutput = network(batch, progress)
    found = {name: matched_objects(m.assignment) for name, m in output.matches.items() if _lasting(name, m.predictions)}
    if told and MATCHING in found and told[0].tokens is not None:
        proposed = told[0].tokens
        found[BY_TOKEN] = by_token(found[MATCHING], proposed, int(proposed.max()) + 1)
    return {name: places.cpu() for name, places in found.items()}


def _lasting(stage: str, predictions: Any) -> bool:
    if isinstance(predictions, RegionPredictions):
        return False
    return stage == MATCHING or not isinstance(predictions, QueryPredictions)


@contextmanager
def _chosen_tokens(network: nn.Module) -> Iterator[list[Queries]]:
    """What the detector's queries are, as soon as it has run."""
    told: list[Queries] = []
    if not isinstance(network, QueryDetector):
        yield told
        return
    hook = network.queries.register_forward_hook(lambda module, words, made: told.append(made))
    try:
        yield told
    finally:
        hook.remove()


@dataclass
class Instability:
    """The changes of one stage between two states, image after image."""

    places: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, before: Tensor, after: Tensor, objects: int) -> None:
        """Count one image: V (N,) of both states."""
        count = max(len(before), len(after))
        before, after = (torch.nn.functional.pad(v, (0, count - len(v)), value=-1) for v in (before, after))
        self.places = max(self.places, count)
        changed = int(changes(before[None], after[None])[0])
        moved = moved_objects(before, after, objects)
        self.rows.append({"image": name, "changed": changed, "objects": objects, "objects_moved": moved})

    def to_dict(self) -> dict[str, Any]:
        """``instability``: changed places an image; ``objects_moved``: share of the objects matched elsewhere."""
        images, objects = len(self.rows), sum(row["objects"] for row in self.rows)
        changed, moved = (sum(row[name] for row in self.rows) for name in ("changed", "objects_moved"))
        return {
            "images": images,
            "objects": objects,
            "places": self.places,
            "instability": changed / images if images else None,
            "objects_moved": moved / objects if objects else None,
        }


def compare(
    name: str, before: Mapping[str, Tensor], after: Mapping[str, Tensor], objects: int, into: dict[str, Instability]
) -> None:
    """Count one image in every stage that both states have, (1,N) each."""
    for stage in before:
        if stage in after and (stage == BY_TOKEN or before[stage].shape == after[stage].shape):
            into.setdefault(stage, Instability()).add(name, before[stage][0], after[stage][0], objects)
