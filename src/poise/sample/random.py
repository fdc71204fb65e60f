"""Uniform choice (Girshick 2015): every candidate is as likely as every other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from poise.sample.protocol import Request, greatest


@dataclass(frozen=True)
class Uniform:
    """Candidates at random, without replacement."""

    needs_loss: ClassVar[bool] = False

    def __call__(self, request: Request) -> Tensor:
        return greatest(request.candidates, request.keys(), request.count, request.most)
