"""RFLA: label assignment by Gaussian receptive fields, for tiny objects (Xu et al. 2022, ECCV).

The effective receptive field of a prior is a Gaussian whose radius er is half of its theoretical receptive field, an
object is the Gaussian with the deviations w / 2 and h / 2. Anchors and the sides of the object play no part, so that no
object is too small for a positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.assign.receptive_field import receptive_fields
from poise.boxes import EPS, planar, xyxy_to_cxcywh
from poise.pairwise import highest_value_wins, object_slices, only_finite, smallest
from poise.structures import Assignment, GroundTruth, Predictions, Priors


@dataclass(frozen=True)
class RFLA:
    """Hierarchical assignment by the receptive field distance 1 / (1 + KL) of priors and objects.

    Each object takes the ``topk`` priors with the highest value. Then, with the effective radius times ``decay``, each
    object takes its best prior, if no object has taken that one before. A prior that several objects take is assigned
    to the one with the highest value. Ties go to the lowest index. ``quality`` is the value. Priors beyond an image's
    padding are ignored.
    """

    topk: int = 3
    decay: float = 0.9  # of the effective radius in the second stage
    divisor: int = 32  # images are padded to a multiple of it
    anchors: int = 1  # of a cell, which follow each other and have one field: all are taken, or none

    def __post_init__(self) -> None:
        if min(self.topk, self.anchors) < 1 or not 0 < self.decay <= 1:
            raise ValueError(f"{self}: topk and anchors are at least 1, 0 < decay <= 1")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        priors, stages = predictions.priors, []
        reachable = priors.within(truth.padded_sizes(self.divisor))
        for topk, decay in ((self.topk * self.anchors, 1.0), (self.anchors, self.decay)):
            value, index = self.candidates(priors, truth.boxes, reachable, topk=topk, decay=decay)  # (B,G,K)
            positive = (value > 0) & truth.valid[..., None]
            stages.append(highest_value_wins(index, value, positive, reachable.shape[1]))
        first, second = stages
        positive = only_finite(predictions, first.found | second.found)
        index = torch.where(first.found, first.index, second.index)
        quality = torch.where(first.found, first.value, second.value).clamp(min=0)
        return Assignment(index, positive, ~reachable, quality)

    def candidates(
        self, priors: Priors, boxes: Tensor, reachable: Tensor, *, topk: int, decay: float
    ) -> tuple[Tensor, Tensor]:
        """Return the ``topk`` highest values 1 / (1 + KL) of objects (B,G,4) and their priors, both (B,G,K)."""
        (batch, count), found = boxes.shape[:2], []
        for part in object_slices(batch, reachable.shape[1], count, planes_alive=4, dense_on=boxes.device):
            divergence = self.divergence(priors, boxes[:, part], decay).clamp_(min=0)
            divergence = torch.where(reachable[:, None], divergence, torch.inf)
            found.append(smallest(divergence, min(topk, divergence.shape[2])))
        value, index = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        return 1 / (1 + value), index

    @staticmethod
    def divergence(priors: Priors, boxes: Tensor, decay: float = 1.0) -> Tensor:
        """Return the KL divergence of the fields of priors from objects (B,g,4), (B,g,N) (section 3).

        2 er^2 / w^2 + 2 er^2 / h^2 + 2 dx^2 / w^2 + 2 dy^2 / h^2 + ln(w / 2 er) + ln(h / 2 er) - 1
        """
        x, y = planar(priors.centers.float())[:, None].unbind(-1)
        center_x, center_y, *sizes = xyxy_to_cxcywh(boxes)[..., None].unbind(2)
        width, height = (size.clamp(min=EPS) for size in sizes)
        radius = receptive_fields(priors.strides) / 2 * decay
        squared = radius.square()
        across = ((x - center_x).square() + squared) * (2 / width.square())
        along = ((y - center_y).square() + squared) * (2 / height.square())
        return across + along + (width * height).log() - (4 * squared).log() - 1
