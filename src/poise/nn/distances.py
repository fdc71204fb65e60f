"""Distances from points to the sides of boxes, which are not below 0.

The published ReLU passes no gradient where its input is negative: a side of the boxes that is 0 everywhere stays 0 for
the rest of a training, and boxes without an area have a GIoU loss of 1 without a gradient. This happens in short
trainings on small objects, at high rates. ``OpenableReLU`` lets the gradient reopen such sides.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class OpenableReLU(torch.autograd.Function):
    """``relu`` whose gradient also passes where the input is negative, if it would raise the input.

    The values are those of ``relu``.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        return inputs.relu()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (inputs,) = ctx.saved_tensors
        return gradient * ((inputs > 0) | (gradient < 0))


def positive(distances: Tensor, openable: bool) -> Tensor:
    """``relu``, in a training that may reopen sides of length 0 with the gradient of :class:`OpenableReLU`."""
    return OpenableReLU.apply(distances) if openable and torch.is_grad_enabled() else distances.relu()
