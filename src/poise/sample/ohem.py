"""Online hard example mining (OHEM, Shrivastava et al. 2016): the candidates with the largest loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from poise.sample.sampler import PositiveNegativeSampler, SelectionRequest


@dataclass(frozen=True)
class OHEM:
    """Select the candidates with the largest classification loss; a loss of NaN counts as 0."""

    needs_loss: ClassVar[bool] = True

    def __call__(self, request: SelectionRequest) -> Tensor:
        """Return the selected candidates (B,N) bool."""
        if request.loss is None:
            raise ValueError("OHEM() ranks priors by their loss: call the sampler with loss=(B,N)")
        keys = request.loss.nan_to_num(nan=0.0).clamp(min=0)
        return request.select(request.candidates, keys)


def ohem_sampler(size: int = 512, positive_fraction: float = 0.25) -> PositiveNegativeSampler:
    """Return online hard example mining of both kinds."""
    return PositiveNegativeSampler(size, positive_fraction, positives=OHEM(), negatives=OHEM())
