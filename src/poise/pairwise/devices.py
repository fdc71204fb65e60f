"""The one question about devices that pairs depend on, and what follows from it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def allows_dynamic_shapes(device: torch.device) -> bool:
    """Return whether the shape of a tensor may depend on data: on a CPU, outside a captured graph.

    An accelerator would have to synchronize with the host, and a captured graph would break.
    """
    return device.type == "cpu" and not torch.compiler.is_compiling()


def accumulate_dtype(device: torch.device) -> torch.dtype:
    """Return the type of sums: float64, so that their order does not show in float32; float32 on Apple's devices."""
    return torch.float32 if device.type == "mps" else torch.float64


def none_left(running: Tensor) -> bool:
    """Return whether all elements are known to be False, so that an iteration may stop early.

    Always False where looking at the values would synchronize.
    """
    return allows_dynamic_shapes(running.device) and not running.any()


def positions(mask: Tensor) -> Tensor:
    """Return the flat positions (P,) int64 where a tensor on a CPU is True.

    NumPy's loop has no branches: it takes a quarter of the time of ``torch.nonzero``.
    """
    return torch.from_numpy(np.flatnonzero(mask.numpy()))
