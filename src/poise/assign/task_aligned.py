"""Task-aligned assignment (TOOD: Feng et al. 2021, section 3.2).

How well a place fits an object is its class score times a power of its box's IoU. Each object takes the places that
fit best, of those the ones inside it; a place taken by several objects goes to the one that its box overlaps most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from poise.boxes import iou
from poise.pairwise.chunks import object_chunks
from poise.pairwise.overlaps import AllOverlaps, overlaps_with
from poise.pairwise.pairs import ListedPairs, Pairs, class_scores_of_pairs
from poise.structures import Assignment, GroundTruth, Predictions

TEMPORARIES = 4  # planes of pairs alive at once, against what streaming allows for


@dataclass(frozen=True)
class TaskAligned:
    """Assignment by score ** alpha * IoU ** beta; ties go to the lowest index.

    ``quality`` of positives is the normalized alignment that TOOD teaches: scaled so that the best place of each
    object has that object's best IoU. Places that are not finite, or outside an image's own padding, are not taken;
    those outside the padding are ignored.
    """

    reads: ClassVar[str] = "predictions"
    topk: int = 13
    alpha: float = 1.0
    beta: float = 6.0
    inside: float = 0.01  # px: how far inside the object a positive's center must be
    divisor: int = 32  # padding of a single image; 0 keeps every place

    def __post_init__(self) -> None:
        if self.topk < 1 or min(self.alpha, self.beta) < 0:
            raise ValueError(f"{self}: topk is at least 1, alpha and beta are not negative")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        priors = predictions.priors
        reachable = priors.within(truth.padded_sizes(self.divisor) if self.divisor else truth.sizes + torch.inf)
        place, metric, overlap = self._best_places(predictions, truth, reachable)
        centers = priors.centers.float().expand(len(place), -1, -1)
        near = centers.gather(1, place.flatten(1)[..., None].expand(-1, -1, 2)).unflatten(1, place.shape[1:])
        depth = torch.minimum(near - truth.boxes[:, :, None, :2], truth.boxes[:, :, None, 2:] - near).amin(-1)
        chosen = (metric > 0) & (depth > self.inside) & truth.valid[..., None]
        return _resolve(place, metric, overlap, chosen, reachable)

    def _best_places(
        self, predictions: Predictions, truth: GroundTruth, reachable: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best places of each object with their metric and IoU, all (B,G,K)."""
        boxes, usable = predictions.boxes.float(), reachable & predictions.finite()
        batch, count = usable.shape
        places, metrics, overlaps = [], [], overlaps_with(boxes, usable)
        for part in object_chunks(batch * TEMPORARIES, count, truth.boxes.shape[1]):
            valid, labels = truth.valid[:, part], truth.labels[:, part]
            found = overlaps(truth.boxes[:, part], valid)
            if not self.beta:  # places that touch nothing count as much as others
                found = AllOverlaps((valid[..., None] & usable[:, None]).float())

            def metric(pairs: Pairs, overlap: Tensor, labels: Tensor = labels) -> Tensor:
                score = class_scores_of_pairs(predictions, labels, pairs)
                return _power(score, self.alpha) * _power(overlap, self.beta)

            values = found.of_touching(metric)
            place, value = found.largest(values, min(self.topk, count))
            places.append(place)
            metrics.append(value)
        best = torch.cat(places, 1)
        pairs = ListedPairs.of_bags(best, count)
        overlap = iou(pairs.of_places(boxes), pairs.of_objects(truth.boxes))
        return best, torch.cat(metrics, 1), overlap.view_as(best)


def _power(value: Tensor, exponent: float) -> Tensor:
    """``value ** exponent`` with one rounding wherever a value lies in memory (the built-in power has two)."""
    if exponent in (1, 2, 6):
        square = value if exponent == 1 else value * value
        return square * square * square if exponent == 6 else square
    return torch.where(value > 0, (value.log() * exponent).exp(), 0.0 if exponent else 1.0)


def _resolve(place: Tensor, metric: Tensor, overlap: Tensor, chosen: Tensor, reachable: Tensor) -> Assignment:
    """From each object's chosen places (B,G,K) to each place's object: the greatest overlap, then the lowest index."""
    batch, objects, _ = place.shape
    flat = place.flatten(1)
    value = torch.where(chosen, overlap, -1.0).flatten(1)
    best = metric.new_full(reachable.shape, -1.0).scatter_reduce(1, flat, value, "amax")
    owner = torch.arange(objects, device=place.device)[:, None].expand_as(place[0]).reshape(1, -1).expand(batch, -1)
    owner = torch.where((value >= 0) & (value == best.gather(1, flat)), owner, objects)
    index = torch.full_like(reachable, objects, dtype=torch.int64).scatter_reduce(1, flat, owner, "amin")
    positive = index < objects
    kept = chosen.flatten(1) & (index.gather(1, flat) == owner)
    aligned = _normalized(kept.reshape(place.shape), metric, overlap)
    quality = metric.new_zeros(reachable.shape).scatter_reduce(1, flat, aligned.flatten(1), "amax")
    return Assignment(torch.where(positive, index, 0), positive, ~reachable & ~positive, quality.clamp(max=1))


def _normalized(kept: Tensor, metric: Tensor, overlap: Tensor) -> Tensor:
    """metric / (greatest metric) * (greatest IoU), each of the object's final positives; 0 where not kept."""
    metric, overlap = torch.where(kept, metric, 0.0), torch.where(kept, overlap, 0.0)
    return metric / (metric.amax(2, keepdim=True) + 1e-7) * overlap.amax(2, keepdim=True)
