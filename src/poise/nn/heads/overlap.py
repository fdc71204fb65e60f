"""PAA's head: ATSS's with the IoU of the predicted box in centerness's place (Kim and Lee 2020, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from torch import Tensor

from poise.nn.heads.centerness import CenternessHead
from poise.structures import GeometricPredictions


class IoUHead(CenternessHead):
    """Pyramid maps (B,C,H_l,W_l) to ``GeometricPredictions``; the quality is the IoU of a place's box."""

    def forward(self, maps: Sequence[Tensor]) -> GeometricPredictions:
        said = super().forward(maps)
        return GeometricPredictions(**{field.name: getattr(said, field.name) for field in fields(said)})
