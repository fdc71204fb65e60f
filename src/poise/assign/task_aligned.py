"""Task-aligned assignment (TOOD: Feng et al. 2021, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.boxes import distance_inside, with_least_sides
from poise.pairwise import BestObject, Pairs, all_pairs, chunks_of_objects, from_index, highest_value_wins, overlapping
from poise.similarities import Similarity, similarity_of
from poise.structures import Assignment, GroundTruth, Predictions


@dataclass(frozen=True)
class TaskAligned:
    """Assignment by the alignment metric t = score ** alpha * IoU ** beta; ties go to the lowest index.

    Each object takes the ``topk`` priors with the highest t, of those the ones inside it; a prior that several objects
    take is assigned to the one with the highest IoU. ``quality`` of positives is TOOD's normalized t: its maximum over
    an object's positives is the object's highest IoU. Priors with predictions that are not finite, or outside an
    image's own padding, are never positive; those outside the padding are ignored. ``similarity`` replaces
    the IoU throughout. ``floor`` px: in the test of "inside", shorter sides grow to it (small-target-aware label
    assignment, STAL, of YOLO26: 16). ``keep``: of the priors that are left to an object after conflicts, only these
    with the highest t are positive; with 1 the assignment is one-to-one (consistent dual assignments of YOLOv10: Wang
    et al. 2024, section 3.1, equation 1, and YOLO26).
    """

    topk: int = 13
    alpha: float = 1.0
    beta: float = 6.0
    inside: float = 0.01  # px: least distance of a positive's center from the sides of the object
    divisor: int = 32  # padding of a single image; 0 keeps every prior
    similarity: Similarity | None = None  # None: the IoU
    floor: float = 0.0
    keep: int | None = None  # None: all

    def __post_init__(self) -> None:
        if self.topk < 1 or min(self.alpha, self.beta, self.floor) < 0:
            raise ValueError(f"{self}: topk is at least 1, alpha, beta and floor are not negative")
        if self.keep is not None and not 1 <= self.keep <= self.topk:
            raise ValueError(f"{self}: keep is at least 1 and at most topk")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        priors, boxes, count = predictions.priors, predictions.boxes.float(), len(predictions.priors.strides)
        reachable = priors.within(truth.padded_sizes(self.divisor) if self.divisor else truth.sizes + torch.inf)
        usable, chunks = reachable & predictions.finite(), []
        everywhere = self.beta == 0 or self.similarity is not None  # priors without overlap count as well
        for objects in chunks_of_objects(truth, count, planes_alive=4, dense=everywhere):
            if everywhere:
                pairs: Pairs = all_pairs(objects.valid, usable)
                similar = similarity_of(self.similarity, pairs.from_priors(boxes), pairs.from_objects(objects.boxes))
                overlap = similar if self.beta else torch.ones_like(similar)
            else:
                pairs, overlap = overlapping(boxes, objects, usable)
            score = pairs.class_scores(predictions, objects.labels)
            chunks.append(pairs.topk_by_object(power(score, self.alpha) * power(overlap, self.beta), self.topk))
        metric, index = (torch.cat(parts, 1) for parts in zip(*chunks, strict=True))  # (B,G,K)
        candidates = from_index(index, count)
        points, objects_of = candidates.from_priors(priors.centers.float()), candidates.from_objects(truth.boxes)
        centers_inside = distance_inside(points, with_least_sides(objects_of, self.floor)).view_as(metric) > self.inside
        overlap = similarity_of(self.similarity, candidates.from_priors(boxes), objects_of).view_as(metric)
        positive = (metric > 0) & centers_inside & truth.valid[..., None]
        best = highest_value_wins(index, overlap, positive, count)
        found = best.found
        if self.keep is not None:
            positive = kept_candidates(best, index, positive, self.keep)
            found = torch.zeros_like(found).scatter_reduce(1, index.flatten(1), positive.flatten(1), "amax")
        quality = quality_of(best, index, positive, metric, overlap=overlap)
        return Assignment(best.index, found, ~reachable & ~found, quality)


def kept_candidates(best: BestObject, index: Tensor, positive: Tensor, keep: int) -> Tensor:
    """Return the first ``keep`` positive candidates of each object whose prior is its own, (B,G,K) bool.

    Args:
        best: the object of each prior.
        index: (B,G,K) priors of the candidates, those with the highest metric first.
        positive: (B,G,K) bool, candidates before conflicts.
    """
    number = torch.arange(index.shape[1], device=index.device)[:, None]
    own = positive & (best.index.gather(1, index.flatten(1)).view_as(index) == number)
    return own & (own.cumsum(2) <= keep)


def quality_of(best: BestObject, index: Tensor, positive: Tensor, metric: Tensor, *, overlap: Tensor) -> Tensor:
    """The metric of positives, scaled so that its maximum over an object's positives is their highest IoU, (B,N)."""
    flat, number = index.flatten(1), torch.arange(index.shape[1], device=index.device)[:, None]
    positive = positive & (best.index.gather(1, flat).view_as(index) == number)
    metric, overlap = torch.where(positive, metric, 0.0), torch.where(positive, overlap, 0.0)
    normalized = metric / (metric.amax(2, keepdim=True) + 1e-7) * overlap.amax(2, keepdim=True)
    return torch.zeros_like(best.value).scatter_reduce(1, flat, normalized.flatten(1), "amax").clamp(max=1)


def power(value: Tensor, exponent: float) -> Tensor:
    """``value ** exponent``, rounded alike in every storage of pairs (the built-in power is not)."""
    if exponent in (1, 2, 6):
        square = value if exponent == 1 else value * value
        return square * square * square if exponent == 6 else square
    return torch.where(value > 0, (value.log() * exponent).exp(), 0.0 if exponent else 1.0)
