"""Instability of matching between two states of a training (DN-DETR: Li et al. 2022, section 3.1).

V is the index of the object that a query (or a prior of a dense head) is matched with, or -1. The instability between
two epochs is the number of queries or priors whose V differs, averaged over images.

Queries that a two-stage DETR makes from encoder tokens can be compared in two ways: by *rank*, the query of the n-th
best token with the query of the n-th best token, or by *token*, queries of the same token. Learned queries are compared
by rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from poise.detectors.parts import is_query_detector
from poise.nn.transformer.queries import Queries
from poise.structures import Assignment, Batch, PairWeights, Predictions, Progress, StepOutput

DECODER_STAGE = "queries"
BY_TOKEN = "queries by token"


def matched_objects(assignment: Assignment | PairWeights) -> Tensor:
    """V of each prior: index of the object that it is assigned to, or -1, (B,N) int64."""
    hard = assignment.hard()
    return torch.where(hard.positive, hard.index, -1)


def match_by_token(matched: Tensor, tokens: Tensor, count: int) -> Tensor:
    """V of each of ``count`` tokens, (B,count), from V of queries (B,Q) that were made from ``tokens`` (B,Q)."""
    return torch.full((len(matched), count), -1, device=matched.device).scatter(1, tokens, matched)


def count_changed(before: Tensor, after: Tensor) -> Tensor:
    """Number of priors whose object differs, (B,) int64, from two (B,N)."""
    return (before != after).sum(1)


def count_rematched(before: Tensor, after: Tensor, count: int) -> int:
    """How many of ``count`` objects of one image are matched with a different set of priors; two (N,)."""
    objects = torch.arange(count, device=before.device)[:, None]
    return int(((before == objects) != (after == objects)).any(1).sum())


@torch.no_grad()
def match_stages(network: nn.Module, batch: Batch, progress: Progress, seed: int = 0) -> dict[str, Tensor]:
    """V (B,N) of each stage whose priors can be compared between states, on the CPU.

    Left out are regions and auxiliary queries, which differ from one state of the network to the next.
    """
    with _record_queries(network) as queries, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        output: StepOutput = network(batch, progress)
    matched = {
        name: matched_objects(match.assignment)
        for name, match in output.matches.items()
        if _comparable(name, match.predictions)
    }
    if queries and DECODER_STAGE in matched and queries[0].token_index is not None:
        tokens = queries[0].token_index
        matched[BY_TOKEN] = match_by_token(matched[DECODER_STAGE], tokens, int(tokens.max()) + 1)
    return {name: index.cpu() for name, index in matched.items()}


def _comparable(stage: str, predictions: Predictions) -> bool:
    return predictions.prior_kind == "cells" or (stage == DECODER_STAGE and predictions.prior_kind == "queries")


@contextmanager
def _record_queries(network: nn.Module) -> Iterator[list[Queries]]:
    """Record the queries that the detector's query module returns."""
    recorded: list[Queries] = []
    if not is_query_detector(network):
        yield recorded
        return
    hook = network.queries.register_forward_hook(lambda module, inputs, output: recorded.append(output))
    try:
        yield recorded
    finally:
        hook.remove()


@dataclass
class Instability:
    """Changes of one stage between two states, image by image."""

    num_priors: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, before: Tensor, after: Tensor, objects: int) -> None:
        """Add one image: V (N,) in both states."""
        count = max(len(before), len(after))
        before, after = (torch.nn.functional.pad(v, (0, count - len(v)), value=-1) for v in (before, after))
        self.num_priors = max(self.num_priors, count)
        changed = int(count_changed(before[None], after[None])[0])
        rematched = count_rematched(before, after, objects)
        self.rows.append({"image": name, "changed": changed, "objects": objects, "objects_rematched": rematched})

    def to_dict(self) -> dict[str, Any]:
        """``instability``: changed priors per image; ``objects_rematched``: fraction of the objects, in [0,1]."""
        images, objects = len(self.rows), sum(row["objects"] for row in self.rows)
        changed, rematched = (sum(row[name] for row in self.rows) for name in ("changed", "objects_rematched"))
        return {
            "images": images,
            "objects": objects,
            "priors": self.num_priors,
            "instability": changed / images if images else None,
            "objects_rematched": rematched / objects if objects else None,
        }


def add_changes(
    name: str, before: Mapping[str, Tensor], after: Mapping[str, Tensor], objects: int, *, into: dict[str, Instability]
) -> None:
    """Add one image to ``into``, for every stage that both states have, (1,N) each."""
    for stage in before:
        if stage in after and (stage == BY_TOKEN or before[stage].shape == after[stage].shape):
            into.setdefault(stage, Instability()).add(name, before[stage][0], after[stage][0], objects)
