"""Contrastive denoising queries (DINO: Zhang et al. 2023, section 3.3).

Each object gives pairs of queries: a positive query, its box shifted by less than half its size, whose target is the
object, and a negative query, its box shifted by more, whose target is no object. The pairs form groups that do not
attend to one another; matched queries do not attend to them.

The original sizes its groups by the image with the most objects, which costs a host-device synchronization. Here the
number of queries is fixed; queries that the original would not have built attend to nothing else and have no loss, so
that the results are equal. A batch without objects needs no special case.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from poise.boxes import cxcywh_to_xyxy, normalize_boxes, xyxy_to_cxcywh
from poise.nn.transformer.layers import inverse_sigmoid
from poise.nn.transformer.queries import Queries, SupervisedQueries
from poise.structures import Assignment, GroundTruth

EPS = 1e-3  # of the inverse sigmoid that noisy boxes are clamped by


class ContrastiveDenoising(nn.Module):
    """Makes denoising queries from the ground truth.

    Args:
        num_classes, channels: of the label embedding, which is the queries' content.
        queries: maximum number of positive queries in all groups, and of negative ones; there is at least one group.
        label_noise: twice the probability that a label is replaced by a random one.
        box_noise: sides of boxes move by half the box's size times this factor times a random number, in [0,1) for
            positives and in [1,2) for negatives.
        generator: source of random numbers; None: torch's default.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int,
        queries: int = 100,
        *,
        label_noise: float = 0.5,
        box_noise: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_classes, channels)
        self.queries, self.label_noise, self.box_noise, self.generator = queries, label_noise, box_noise, generator

    def forward(self, truth: GroundTruth) -> SupervisedQueries:
        """Return D denoising queries of each image."""
        group, rank, negative = self._layout(truth)
        used = group >= 0
        filled = used & (rank < truth.valid.sum(1, keepdim=True))
        valid_first = (~truth.valid).int().argsort(dim=1, stable=True)
        index = valid_first.gather(1, rank.clamp(max=valid_first.shape[1] - 1).expand_as(filled))
        content = self.embedding(self._noisy_labels(truth.labels.gather(1, index))) * filled[..., None]
        boxes = normalize_boxes(truth.boxes, truth.sizes).gather(1, index[..., None].expand(-1, -1, 4))
        noisy = inverse_sigmoid(self._noisy_boxes(boxes, negative), EPS)
        references = torch.where(filled[..., None], noisy, 0.0).sigmoid()
        positive = filled & ~negative
        assignment = Assignment(index, positive, (~used).expand_as(positive), positive.float())
        return SupervisedQueries(
            Queries(content, references),
            assignment,
            group[None],
            match_name="denoising",
            loss_name="dn_{}",
            attends_to_matched=True,
        )

    def _layout(self, truth: GroundTruth) -> tuple[Tensor, Tensor, Tensor]:
        """Return for each of D queries its group (-1: unused), the rank of its object, and whether it is negative.

        A group has as many positive queries as the image with the most objects has objects, then as many negatives.
        """
        max_objects = truth.valid.sum(1).amax()
        width = max_objects.clamp(min=1)
        slots = torch.arange(2 * max(self.queries, truth.valid.shape[1]), device=width.device)
        group, rank = slots // (2 * width), slots % (2 * width)
        used = (group < (self.queries // width).clamp(min=1)) & (max_objects > 0)
        negative = rank >= width
        return torch.where(used, group, -1), rank - negative * width, negative

    def _noisy_labels(self, labels: Tensor) -> Tensor:
        others = torch.randint(self.embedding.num_embeddings, labels.shape, **self._random(labels))
        return torch.where(torch.rand(labels.shape, **self._random(labels)) < self.label_noise / 2, others, labels)

    def _noisy_boxes(self, boxes: Tensor, negative: Tensor) -> Tensor:
        """Move each side of normalized boxes (B,D,4); opposite sides of negatives may cross, which gives no area."""
        sign = torch.randint(2, boxes.shape, **self._random(boxes)) * 2 - 1
        factor = torch.rand(boxes.shape, **self._random(boxes)) + negative[:, None]
        half_size = boxes[..., 2:].repeat(1, 1, 2) / 2 * self.box_noise
        return xyxy_to_cxcywh((cxcywh_to_xyxy(boxes) + sign * factor * half_size).clamp(0, 1))

    def _random(self, like: Tensor) -> dict[str, Any]:
        return {"device": like.device, "generator": self.generator}
