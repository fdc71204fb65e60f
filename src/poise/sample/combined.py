"""The sampler of two-stage detectors: a number of places, a share of positives, and a way to choose each kind."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from poise.sample.balanced import InstanceBalanced, IoUBalanced
from poise.sample.ohem import OHEM
from poise.sample.protocol import SelectionRequest, SelectionRule, to_sample
from poise.sample.random import RandomSelection
from poise.structures import Assignment, Sample


@dataclass(frozen=True)
class PositiveNegativeSampler:
    """Up to ``size`` places an image: at most ``positive_fraction`` of them positive, the rest negative.

    ``negatives_per_positive`` >= 0 also limits the negatives to that many for each chosen positive (for one where
    there is none). With too few candidates the sample is smaller.
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
                "size >= 1, fraction in [0,1]"
            )

    @property
    def needs_loss(self) -> bool:
        return self.positives.needs_loss or self.negatives.needs_loss

    @torch.no_grad()
    def __call__(
        self, assignment: Assignment, generator: torch.Generator | None = None, loss: Tensor | None = None
    ) -> Sample:
        most = int(self.size * self.positive_fraction)
        share = torch.full_like(assignment.index[:, 0], most)
        positive = self.positives(SelectionRequest(assignment.positive, share, most, assignment, generator, loss))
        found = positive.sum(1)
        rest = self.size - found
        if self.negatives_per_positive >= 0:
            rest = torch.minimum(rest, (self.negatives_per_positive * found.clamp(min=1)).long())
        negative = self.negatives(SelectionRequest(assignment.negative, rest, self.size, assignment, generator, loss))
        return to_sample(positive, negative, self.size)


def random_sampler(
    size: int = 512, positive_fraction: float = 0.25, negatives_per_positive: float = -1.0
) -> PositiveNegativeSampler:
    """Both kinds at random (Faster R-CNN)."""
    return PositiveNegativeSampler(size, positive_fraction, negatives_per_positive)


def libra_sampler(size: int = 512, positive_fraction: float = 0.25) -> PositiveNegativeSampler:
    """Libra R-CNN's, as published: what its code does, not all of what its article says."""
    return PositiveNegativeSampler(size, positive_fraction, positives=InstanceBalanced(), negatives=IoUBalanced())


def libra_article_sampler(
    size: int = 512, positive_fraction: float = 0.25, negative_threshold: float = 0.5
) -> PositiveNegativeSampler:
    """Libra R-CNN's as the article describes it: bins over all negatives' overlaps, exact numbers."""
    negatives = IoUBalanced(floor=-1.0, top=negative_threshold)
    return PositiveNegativeSampler(size, positive_fraction, positives=InstanceBalanced(exact=True), negatives=negatives)


def ohem_sampler(size: int = 512, positive_fraction: float = 0.25) -> PositiveNegativeSampler:
    """Online hard example mining for both kinds."""
    return PositiveNegativeSampler(size, positive_fraction, positives=OHEM(), negatives=OHEM())
