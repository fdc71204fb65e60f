"""Contrastive denoising (DINO: Zhang et al. 2023, section 3.3): queries that know which object they are to restore.

Each object gives pairs of queries: a positive, its box shifted by less than half its size, to be put right, and a
negative, shifted by more, to be called nothing. Pairs come in groups that see neither each other nor are seen by the
matching queries. The original sizes its groups by the image with the most objects, which it must wait for; here the
number of queries is fixed and what the original would not have built takes part in nothing, so the numbers are the
same without waiting, and no object at all is no special case.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from poise.boxes import cxcywh_to_xyxy, normalize_boxes, xyxy_to_cxcywh
from poise.nn.transformer.positions import inverse_sigmoid
from poise.nn.transformer.queries import Queries, SupervisedQueries
from poise.structures import Assignment, GroundTruth

EPS = 1e-3  # of the inverse sigmoid through which noisy boxes pass


class ContrastiveDenoising(nn.Module):
    """Queries from the truth.

    Args:
        queries: positives, and negatives, that all groups have together at most; one group is always there.
        label_noise: twice the probability that a label is replaced by one at random.
        box_noise: how far a box's sides move: in [0,1) half sizes times this for positives, in [1,2) for negatives.
        generator: what is drawn from; None is torch's own.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int,
        queries: int = 100,
        label_noise: float = 0.5,
        box_noise: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_classes, channels)
        self.queries, self.label_noise, self.box_noise, self.generator = queries, label_noise, box_noise, generator

    def forward(self, truth: GroundTruth) -> SupervisedQueries:
        group, place, negative = self._layout(truth)
        used = group >= 0
        filled = used & (place < truth.valid.sum(1, keepdim=True))
        first = (~truth.valid).int().argsort(dim=1, stable=True)  # the valid objects ahead of the others
        index = first.gather(1, place.clamp(max=first.shape[1] - 1).expand_as(filled))
        content = self.embedding(self._noisy_labels(truth.labels.gather(1, index))) * filled[..., None]
        shares = normalize_boxes(truth.boxes, truth.sizes).gather(1, index[..., None].expand(-1, -1, 4))
        noisy = inverse_sigmoid(self._noisy_boxes(shares, negative), EPS)
        references = torch.where(filled[..., None], noisy, 0.0).sigmoid()
        positive = filled & ~negative
        assignment = Assignment(index, positive, (~used).expand_as(positive), positive.float())
        return SupervisedQueries(Queries(content, references), assignment, group[None], "denoising", "dn_{}", True)

    def _layout(self, truth: GroundTruth) -> tuple[Tensor, Tensor, Tensor]:
        """Of each of D queries its group (-1: takes part in nothing), which object of an image it is, whether negative.

        A group is as many positives as the fullest image has objects, then as many negatives.
        """
        most = truth.valid.sum(1).amax()
        width = most.clamp(min=1)
        slots = torch.arange(2 * max(self.queries, truth.valid.shape[1]), device=width.device)
        group, place = slots // (2 * width), slots % (2 * width)
        used = (group < (self.queries // width).clamp(min=1)) & (most > 0)
        negative = place >= width
        return torch.where(used, group, -1), place - negative * width, negative

    def _noisy_labels(self, labels: Tensor) -> Tensor:
        others = torch.randint(self.embedding.num_embeddings, labels.shape, **self._draw(labels))
        return torch.where(torch.rand(labels.shape, **self._draw(labels)) < self.label_noise / 2, others, labels)

    def _noisy_boxes(self, shares: Tensor, negative: Tensor) -> Tensor:
        """Every side moved its own way; sides of negatives can cross, which leaves no width or height."""
        sign = torch.randint(2, shares.shape, **self._draw(shares)) * 2 - 1
        part = torch.rand(shares.shape, **self._draw(shares)) + negative[:, None]
        reach = shares[..., 2:].repeat(1, 1, 2) / 2 * self.box_noise
        return xyxy_to_cxcywh((cxcywh_to_xyxy(shares) + sign * part * reach).clamp(0, 1))

    def _draw(self, like: Tensor) -> dict[str, Any]:
        return {"device": like.device, "generator": self.generator}
