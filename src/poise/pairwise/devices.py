"""What pairs depend on besides their values: whether shapes may depend on data, the type of sums, and memory.

Objects are processed in chunks, so that the planes (B,g,N) of a chunk stay within a number of elements.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from poise.structures import GroundTruth

PLANE_ELEMENTS = 1 << 25  # of all (B,g,N) planes of a chunk together
CACHED_ELEMENTS = 1 << 20  # of one dense plane on a CPU: planes that stay in its cache are read several times as fast
LISTED_SHARE = 8  # at most one pair in so many is listed


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


@dataclass(frozen=True)
class Objects:
    """Consecutive objects of every image."""

    boxes: Tensor  # (B,g,4) xyxy pixels
    labels: Tensor  # (B,g)
    valid: Tensor  # (B,g) bool
    part: slice  # of the G objects

    @property
    def index(self) -> Tensor:
        """The number of each object among all G, (g,) int64."""
        return torch.arange(self.part.start, self.part.stop, device=self.labels.device)


def object_slices(batch: int, priors: int, objects: int, planes_alive: int = 1) -> list[slice]:
    """Slice the object axis so that ``planes_alive`` planes (B,g,N) stay within ``PLANE_ELEMENTS``."""
    return _slices(objects, PLANE_ELEMENTS // max(1, batch * priors * planes_alive))


def cached_slices(batch: int, priors: int, objects: int, device: torch.device) -> list[slice]:
    """Slice the object axis so that a dense plane (B,g,N) stays within the cache of a CPU."""
    elements = min(PLANE_ELEMENTS, CACHED_ELEMENTS) if allows_dynamic_shapes(device) else PLANE_ELEMENTS
    return _slices(objects, elements // max(1, batch * priors))


def chunks_of_objects(
    truth: GroundTruth, priors: int, planes_alive: int = 1, *, dense: bool = False
) -> Iterator[Objects]:
    """Yield the objects in chunks.

    Args:
        priors: N.
        planes_alive: planes (B,g,N) that exist at the same time.
        dense: whether all pairs are computed on a CPU as well (:func:`poise.pairwise.all_pairs`).
    """
    (batch, objects), device = truth.labels.shape, truth.labels.device
    if dense:
        slices = cached_slices(batch, priors, objects, device)
    else:
        share = LISTED_SHARE if allows_dynamic_shapes(device) else 1
        slices = _slices(objects, share * PLANE_ELEMENTS // max(1, batch * priors * planes_alive))
    for part in slices:
        yield Objects(truth.boxes[:, part], truth.labels[:, part], truth.valid[:, part], part)


def _slices(objects: int, size: int) -> list[slice]:
    size = max(1, size)
    return [slice(start, min(start + size, objects)) for start in range(0, objects, size)]
