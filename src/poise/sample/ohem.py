"""Online hard example mining (Shrivastava et al. 2016): the candidates with the greatest loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from poise.sample.protocol import SelectionRequest, select_topk


@dataclass(frozen=True)
class OHEM:
    """Candidates in the order of their classification loss; one whose loss is not a number comes last."""

    needs_loss: ClassVar[bool] = True

    def __call__(self, request: SelectionRequest) -> Tensor:
        if request.loss is None:
            raise ValueError("OHEM() ranks by the loss of each place: hand the sampler loss=(B,N)")
        return select_topk(
            request.candidates, request.loss.nan_to_num(nan=0.0).clamp(min=0), request.count, request.max_count
        )
