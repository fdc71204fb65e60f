"""RandomSelection choice (Girshick 2015): every candidate is as likely as every other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from poise.sample.protocol import SelectionRequest, select_topk


@dataclass(frozen=True)
class RandomSelection:
    """Candidates at random, without replacement."""

    needs_loss: ClassVar[bool] = False

    def __call__(self, request: SelectionRequest) -> Tensor:
        return select_topk(request.candidates, request.keys(), request.count, request.max_count)
