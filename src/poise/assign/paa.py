"""Probabilistic anchor assignment (Kim and Lee 2020, section 3.2).

Anchors that overlap an object a little are its candidates, of which the ones with the lowest losses on each level are
kept. Two normal distributions are fitted to those losses; the anchors of the lower one are positive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from poise.assign.dynamic_k import focal_of_absent, focal_of_present
from poise.assign.max_iou import MaxIoU
from poise.assign.mixture import low_component
from poise.boxes import giou
from poise.pairwise import CompactPriors, only_finite, sort_keys
from poise.structures import Assignment, GroundTruth, Predictions

EQUAL = 1e-4  # log-likelihoods that differ by less are equal: between two anchors alone only rounding would decide


@dataclass(frozen=True)
class PAA:
    """Assignment by losses: of the lower component, the anchors up to the likeliest one in the order of their loss.

    The loss of an anchor is the focal loss of its classes plus ``box_weight`` times 1 - GIoU. Candidates that are left
    out are negatives (the original code's separation; in the article some are ignored). Objects with fewer than two
    candidates have no positive; anchors with predictions that are not finite are no candidates. Ties in the loss go to
    the lowest index, ties in the likelihood (up to 1e-4) to the lowest loss. ``first`` finds the candidates with its
    own ties and gives the ``quality``.
    """

    topk: int = 9  # candidates of an object on each level
    first: MaxIoU = MaxIoU(0.1, 0.1, 0.0)
    box_weight: float = 1.3
    alpha: float = 0.25  # of the focal loss
    gamma: float = 2.0
    iterations: int = 100  # of the fit at most

    def __post_init__(self) -> None:
        if min(self.topk, self.iterations) < 1 or self.box_weight < 0:
            raise ValueError(f"{self}: topk and iterations are at least 1, box_weight is not negative")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        priors = predictions.priors
        first = self.first.assign(priors.boxes, self.first.reachable(priors, truth), truth)
        positive = CompactPriors.of(only_finite(predictions, first.positive))
        found = positive.take(first)
        loss = self.losses(positive.take(predictions), found.labels(truth), found.boxes(truth))
        loss = positive.scatter_back(torch.where(loss.isfinite(), loss, torch.inf), fill=torch.inf)
        prior, loss = self.candidates(loss, first.index, truth.labels.shape[1], priors.level_sizes)  # (B,G,K)
        candidate = loss < torch.inf
        low, likelihood = low_component(loss, candidate, self.iterations)  # algorithm 1, lines 12-13
        low = low & candidate & (candidate.sum(2, keepdim=True) > 1)
        likelihood = torch.where(low, likelihood, -torch.inf)
        likeliest = low & (likelihood >= likelihood.amax(2, keepdim=True) - EQUAL)
        positive = low & (likeliest.cumsum(2) - likeliest.long() == 0)  # line 14, up to the likeliest
        claims = torch.zeros_like(first.index).scatter_add(1, prior.flatten(1), positive.flatten(1).long())
        return replace(first, positive=claims > 0)

    def losses(self, predictions: Predictions, labels: Tensor, objects: Tensor) -> Tensor:
        """Loss (B,N) of each anchor for its object, with labels (B,N) and boxes (B,N,4)."""
        logits = predictions.logits.float()
        present = focal_of_present(logits.gather(2, labels[..., None]), self.alpha, self.gamma)
        class_loss = focal_of_absent(logits, self.alpha, self.gamma).scatter_(2, labels[..., None], present).sum(2)
        return class_loss + self.box_weight * (1 - giou(predictions.boxes.float(), objects))

    def candidates(
        self, loss: Tensor, index: Tensor, objects: int, level_sizes: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Priors (B,G,K) of the lowest finite losses of each object and level, and these losses, ascending.

        ``index`` (B,N) is the object of each prior. Since every prior has one, a sort by object, level and loss finds
        all candidates, without pairs. Where there are fewer than K, the loss is infinite.
        """
        levels = len(level_sizes)
        level = torch.cat([index.new_full((size,), i) for i, size in enumerate(level_sizes)])
        segment = torch.where(loss < torch.inf, index * levels + level, objects * levels)
        order = (segment << 32).add_(sort_keys(loss)).argsort(dim=1, stable=True)
        segment = segment.gather(1, order)
        rank = torch.arange(loss.shape[1], device=loss.device) - torch.searchsorted(segment, segment)
        slots = objects * levels * self.topk
        slot = torch.where((rank < self.topk) & (segment < objects * levels), segment * self.topk + rank, slots)
        priors = order.new_zeros(len(loss), slots + 1).scatter(1, slot, order)
        losses = loss.new_full((len(loss), slots + 1), torch.inf).scatter(1, slot, loss.gather(1, order))
        losses, rising = losses[:, :-1].unflatten(1, (objects, -1)).sort(dim=2, stable=True)
        return priors[:, :-1].unflatten(1, (objects, -1)).gather(2, rising), losses
