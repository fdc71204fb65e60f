"""Top scores: the queries with the highest scores for each object (MS-DETR: Zhao et al. 2024, arXiv 2401.03989).

This is the one-to-many assignment of section 3 of the paper. The score of a query and an object is
α s + (1 − α) IoU(b, g), where s is the score of the object's class and b the predicted box. α = 0.3, topk = 6 and the
threshold of 0.4 are those of the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.boxes import iou
from poise.pairwise import smallest
from poise.structures import Assignment, GroundTruth, Predictions


@dataclass(frozen=True)
class TopScores:
    """Assignment of each object's best queries; ``quality`` is the IoU of the predicted box.

    An object takes the ``topk`` queries with the highest scores, if they reach the threshold, and its best one in any
    case. A query that several objects take is assigned to the one with the highest score.

    Args:
        topk: number of queries that an object takes at most.
        threshold: least score of a query, except of an object's best one.
        alpha: share of the class score, in [0,1]; the IoU has the rest.
    """

    topk: int = 6
    threshold: float = 0.4
    alpha: float = 0.3

    def __post_init__(self) -> None:
        if self.topk < 1 or not (0 <= self.threshold <= 1 and 0 <= self.alpha <= 1):
            raise ValueError(f"{self}: topk is at least 1, threshold and alpha lie in [0,1]")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        score, overlap = self.scores(predictions, truth)
        best, index = score.where(self.taken(score), -torch.inf).max(1)
        positive = best > -torch.inf
        quality = torch.where(positive, overlap.gather(1, index[:, None]).squeeze(1), 0.0).clamp(0, 1)
        return Assignment(torch.where(positive, index, 0), positive, torch.zeros_like(positive), quality)

    def scores(self, predictions: Predictions, truth: GroundTruth) -> tuple[Tensor, Tensor]:
        """Return the scores and the IoUs of all pairs of object and query, (B,G,N) each.

        A score is -inf where there is no object, or the prediction is not finite.
        """
        index = truth.labels[:, None].expand(-1, predictions.logits.shape[1], -1)
        s = predictions.logits.float().gather(2, index).sigmoid().mT
        overlap = iou(predictions.boxes.float()[:, None], truth.boxes[:, :, None])
        score = self.alpha * s + (1 - self.alpha) * overlap
        possible = truth.valid[..., None] & predictions.finite()[:, None] & score.isfinite()
        return torch.where(possible, score, -torch.inf), overlap

    def taken(self, score: Tensor) -> Tensor:
        """Return which queries each object takes, (B,G,N) bool, of scores (B,G,N); ties go to the lowest query."""
        value, query = smallest(-score, min(self.topk, score.shape[2]))
        takes = (-value >= self.threshold) | (torch.arange(value.shape[2], device=value.device) == 0)
        return torch.zeros_like(score, dtype=torch.bool).scatter(2, query, takes & (value < torch.inf))
