"""Receptive fields of priors as squares: what RFLA and RFAssigner compare with objects instead of anchors."""

from __future__ import annotations

import torch
from torch import Tensor

RESNET50_FIELDS = (35.0, 91.0, 267.0, 427.0, 491.0, 619.0)  # px, of P2 to P7, strides 4 to 128


def receptive_fields(strides: Tensor) -> Tensor:
    """Return the side of the theoretical receptive field of each prior, in the shape of ``strides``, in pixels.

    The field of a layer is that of the layer before plus (kernel - 1) times the product of all strides before
    (RFLA: Xu et al. 2022, section 3). The values are those of a ResNet-50 with a feature pyramid, P2 to P7. A level
    takes the value of the stride that is nearest to its own.
    """
    level = (strides / 4).log2().round()
    fields = torch.full_like(level, RESNET50_FIELDS[0])
    for number, side in enumerate(RESNET50_FIELDS[1:], start=1):
        fields = torch.where(level >= number, side, fields)
    return fields
