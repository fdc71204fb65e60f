"""The sampler of two-stage detectors: a selection rule for positives and one for negatives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from poise.sample.balanced import InstanceBalanced, IoUBalanced
from poise.sample.ohem import OHEM
from poise.sample.protocol import SelectionRequest, SelectionRule, select_topk, to_sample
from poise.structures import Assignment, Sample


@dataclass(frozen=True)
class RandomSelection:
    """Select candidates at random, without replacement (Girshick 2015)."""

    needs_loss: ClassVar[bool] = False

    def __call__(self, request: SelectionRequest) -> Tensor:
        """Return the selected candidates (B,N) bool."""
        return select_topk(request.candidates, request.keys(), request.count, request.max_count)


@dataclass(frozen=True)
class PositiveNegativeSampler:
    """Select up to ``size`` priors per image: at most ``positive_fraction`` of them positive, the rest negative.

    ``negatives_per_positive`` >= 0 also limits the negatives to that many for each selected positive (at least one
    positive is counted). With too few candidates the sample is smaller.
    """

    size: int = 512
    positive_fraction: float = 0.25
    negatives_per_positive: float = -1.0
    positives: SelectionRule = field(default_factory=RandomSelection)
    negatives: SelectionRule = field(default_factory=RandomSelection)

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.positive_fraction <= 1:
            raise ValueError(
                f"PositiveNegativeSampler(size={self.size}, positive_fraction={self.positive_fraction}): "
                "size must be >= 1, positive_fraction in [0,1]"
            )

    @property
    def needs_loss(self) -> bool:
        """Whether one of the selection rules reads the losses."""
        return self.positives.needs_loss or self.negatives.needs_loss

    @torch.no_grad()
    def __call__(
        self, assignment: Assignment, generator: torch.Generator | None = None, loss: Tensor | None = None
    ) -> Sample:
        """Return the sample of an assignment; ``loss`` (B,N) is needed with ``needs_loss``."""
        max_positives = int(self.size * self.positive_fraction)
        count = torch.full_like(assignment.index[:, 0], max_positives)
        positive = self.positives(
            SelectionRequest(assignment.positive, count, max_positives, assignment, generator, loss)
        )
        num_positives = positive.sum(1)
        count = self.size - num_positives
        if self.negatives_per_positive >= 0:
            count = torch.minimum(count, (self.negatives_per_positive * num_positives.clamp(min=1)).long())
        negative = self.negatives(SelectionRequest(assignment.negative, count, self.size, assignment, generator, loss))
        return to_sample(positive, negative, self.size)


def random_sampler(
    size: int = 512, positive_fraction: float = 0.25, negatives_per_positive: float = -1.0
) -> PositiveNegativeSampler:
    """Return the sampler of Faster R-CNN: both kinds at random."""
    return PositiveNegativeSampler(size, positive_fraction, negatives_per_positive)


def libra_sampler(size: int = 512, positive_fraction: float = 0.25) -> PositiveNegativeSampler:
    """Return the sampler of Libra R-CNN's published code, which differs from the article (see ``balanced``)."""
    return PositiveNegativeSampler(size, positive_fraction, positives=InstanceBalanced(), negatives=IoUBalanced())


def libra_article_sampler(
    size: int = 512, positive_fraction: float = 0.25, negative_threshold: float = 0.5
) -> PositiveNegativeSampler:
    """Return the sampler of Libra R-CNN's article: bins over the IoU of all negatives, exact numbers."""
    negatives = IoUBalanced(floor=-1.0, top=negative_threshold)
    return PositiveNegativeSampler(size, positive_fraction, positives=InstanceBalanced(exact=True), negatives=negatives)


def ohem_sampler(size: int = 512, positive_fraction: float = 0.25) -> PositiveNegativeSampler:
    """Return online hard example mining of both kinds."""
    return PositiveNegativeSampler(size, positive_fraction, positives=OHEM(), negatives=OHEM())
