"""Probabilistic anchor assignment (Kim and Lee 2020, section 3.2).

Anchors that overlap an object a little are its candidates. On each level the ones with the lowest losses are kept;
those losses come from two normal distributions, and the places of the lower one are positive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from poise.assign.max_iou import MaxIoU
from poise.assign.mixture import low_component
from poise.boxes import giou
from poise.pairwise.chunks import lowest_index, object_chunks
from poise.pairwise.class_cost import focal_of_absent
from poise.pairwise.listing import Places
from poise.pairwise.planes import ordered
from poise.structures import Assignment, GroundTruth, Predictions

SAME = 1e-4  # log-likelihoods that differ by less are equal: of two places alone in a component, only rounding decides


@dataclass(frozen=True)
class PAA:
    """Assignment by losses: of the lower component, the places up to the likeliest one in the order of their loss.

    The loss of a place is the focal loss of its classes plus ``box_weight`` times 1 - GIoU. Candidates that are left
    out are negatives (the original code's separation; in the article some are ignored). Objects with fewer than two
    candidates have no positive; places with predictions that are not finite are no candidates. Ties in the loss go to
    the lowest index, ties in the likelihood (up to 1e-4) to the lowest loss, and ``first``, which finds the candidates
    and says their ``quality``, has its own.
    """

    reads: ClassVar[str] = "predictions"
    topk: int = 9  # candidates of an object on each level
    first: MaxIoU = MaxIoU(0.1, 0.1, 0.0)
    box_weight: float = 1.3
    alpha: float = 0.25  # of the focal loss, as its exponent gamma
    gamma: float = 2.0
    iterations: int = 100  # of the fit at most

    def __post_init__(self) -> None:
        if min(self.topk, self.iterations) < 1 or self.box_weight < 0:
            raise ValueError(f"{self}: topk and iterations are at least 1, box_weight is not negative")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        priors = predictions.priors
        first = self.first.on(priors.boxes, self.first.reachable(priors, truth), truth)
        places = Places.of(first.positive)
        chosen, near = places.take(predictions), places.take(first)
        loss = self._loss(chosen, near.labels(truth), near.boxes(truth))
        loss = torch.where(places.held & chosen.finite() & loss.isfinite(), loss, torch.inf)
        sizes = priors.level_sizes
        level = places.of_all(torch.cat([near.index.new_full((size,), i) for i, size in enumerate(sizes)]))
        place, loss = self._candidates(loss, near.index, level, truth.labels.shape[1], len(sizes))
        counted = loss < torch.inf
        low, likelihood = low_component(loss, counted, self.iterations)
        low = low & counted & (counted.sum(2, keepdim=True) > 1)
        likelihood = torch.where(low, likelihood, -torch.inf)
        last = lowest_index(low & (likelihood >= likelihood.amax(2, keepdim=True) - SAME))
        taken = low & (torch.arange(low.shape[2], device=low.device) <= last[..., None])
        times = torch.zeros_like(near.index).scatter_add(1, place.flatten(1), taken.flatten(1).long())
        return replace(first, positive=places.spread(times > 0))

    def _loss(self, predictions: Predictions, labels: Tensor, objects: Tensor) -> Tensor:
        """Loss (B,N) of each place for its object."""
        batch, places, classes = predictions.logits.shape
        parts = object_chunks(batch, classes, places, labels.device)
        class_losses = [self._class_loss(predictions.logits[:, part].float(), labels[:, part, None]) for part in parts]
        return torch.cat(class_losses, 1) + self.box_weight * (1 - giou(predictions.boxes.float(), objects))

    def _class_loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Focal loss (B,n) of logits (B,n,C) for one class (B,n,1)."""
        own = logits.gather(2, label)
        present = self.alpha * own.neg().sigmoid() ** self.gamma * softplus(-own)
        return focal_of_absent(logits, self.alpha, self.gamma).scatter_(2, label, present).sum(2)

    def _candidates(
        self, loss: Tensor, index: Tensor, level: Tensor, objects: int, levels: int
    ) -> tuple[Tensor, Tensor]:
        """Places (B,G,K) of the lowest finite losses of each object and level, and these losses, ascending.

        ``index`` (B,N) is each place's object, ``level`` (B|1,N) its level. Every place has one, so a sort by object
        and level finds them all; no pair of place and object is looked at. Where there are fewer, the loss is infinite.
        """
        segment = torch.where(loss < torch.inf, index * levels + level, objects * levels)
        order = (segment << 32).add_(ordered(loss)).argsort(dim=1, stable=True)
        segment = segment.gather(1, order)
        rank = torch.arange(loss.shape[1], device=loss.device) - torch.searchsorted(segment, segment)
        slots = objects * levels * self.topk
        slot = torch.where((rank < self.topk) & (segment < objects * levels), segment * self.topk + rank, slots)
        places = order.new_zeros(len(loss), slots + 1).scatter(1, slot, order)
        losses = loss.new_full((len(loss), slots + 1), torch.inf).scatter(1, slot, loss.gather(1, order))
        losses, rising = losses[:, :-1].unflatten(1, (objects, -1)).sort(dim=2, stable=True)
        return places[:, :-1].unflatten(1, (objects, -1)).gather(2, rising), losses
