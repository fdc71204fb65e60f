"""Numbers of a page, compactly: 16 bits each, deflated, as base64.

Weights, scores and overlaps keep three to four digits: 0 stays 0, the greatest is 65535, and between them codes are
even steps of the logarithm down to a millionth of the greatest (smaller ones become 0). Coordinates are eighths of a
pixel of the picture shown.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

RANGE = 1e6  # greatest over least number that keeps a code of its own
STEPS = 65534
EIGHTHS = 8


def codes(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Codes (uint16) of numbers >= 0, and the greatest of the numbers."""
    values = np.nan_to_num(np.asarray(values, dtype=np.float64), posinf=0.0)
    greatest = float(values.max(initial=0.0))
    if greatest <= 0:
        return np.zeros(values.shape, dtype=np.uint16), 0.0
    share = values / greatest
    steps = np.round(STEPS * (1 + np.log(np.maximum(share, 1 / RANGE)) / math.log(RANGE)))
    return np.where(share >= 1 / RANGE, 1 + steps, 0).astype(np.uint16), greatest


def decoded(code: np.ndarray, greatest: float) -> np.ndarray:
    """What the page reads out of codes."""
    steps = (code.astype(np.float64) - 1) / STEPS
    return np.where(code > 0, greatest * np.exp((steps - 1) * math.log(RANGE)), 0.0)


def eighths(coordinates: np.ndarray) -> np.ndarray:
    """Coordinates (any shape) as int16; what lies far outside the picture is cut."""
    limit = 32767 / EIGHTHS
    return np.round(np.clip(np.nan_to_num(coordinates), -limit, limit) * EIGHTHS).astype(np.int16)


def packed(planes: Sequence[np.ndarray]) -> str:
    """16-bit planes one after the other, deflated, as base64; little-endian."""
    raw = b"".join(np.ascontiguousarray(plane).astype(plane.dtype.newbyteorder("<")).tobytes() for plane in planes)
    return base64.b64encode(zlib.compress(raw, 6)).decode()


class Planes:
    """Named planes of one length on their way to the page."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.planes: list[np.ndarray] = []
        self.greatest: dict[str, float] = {}

    def whole(self, name: str, values: np.ndarray) -> None:
        """Whole numbers in [-1, 65534]; -1 becomes 65535."""
        self._add(name, (np.asarray(values).astype(np.int64) & 0xFFFF).astype(np.uint16))

    def number(self, name: str, values: np.ndarray) -> None:
        """Numbers >= 0, as codes."""
        code, self.greatest[name] = codes(values)
        self._add(name, code)

    def boxes(self, name: str, values: np.ndarray) -> None:
        """(n,4) boxes in pixels of the picture: four planes, ``name0`` to ``name3``."""
        for i, plane in enumerate(eighths(values).T):
            self._add(f"{name}{i}", plane.view(np.uint16))

    def result(self) -> dict[str, Any]:
        """What the page reads: names in order, length, greatest values, data."""
        length = len(self.planes[0]) if self.planes else 0
        rounded = {name: float(f"{value:.6g}") for name, value in self.greatest.items()}
        return {"names": self.names, "length": length, "greatest": rounded, "data": packed(self.planes)}

    def _add(self, name: str, plane: np.ndarray) -> None:
        self.names.append(name)
        self.planes.append(plane)
