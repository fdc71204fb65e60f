"""Compact arrays for the page: 16 bits per number, deflated, in base64.

Weights, scores and overlaps keep three to four digits: 0 is coded as 0, the maximum as 65535, and values between
uniformly in the logarithm down to a millionth of the maximum (smaller values become 0). Coordinates are coded in
eighths of a pixel of the image as shown.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Sequence

import numpy as np

RANGE = 1e6  # ratio of the maximum to the smallest value with a code of its own
STEPS = 65534
SUBPIXELS = 8


def encode_log(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Codes (uint16) of numbers >= 0, and their maximum."""
    values = np.nan_to_num(np.asarray(values, dtype=np.float64), posinf=0.0)
    maximum = float(values.max(initial=0.0))
    if maximum <= 0:
        return np.zeros(values.shape, dtype=np.uint16), 0.0
    ratio = values / maximum
    steps = np.round(STEPS * (1 + np.log(np.maximum(ratio, 1 / RANGE)) / math.log(RANGE)))
    return np.where(ratio >= 1 / RANGE, 1 + steps, 0).astype(np.uint16), maximum


def decode_log(code: np.ndarray, maximum: float) -> np.ndarray:
    """Invert :func:`encode_log`, as the page does."""
    steps = (code.astype(np.float64) - 1) / STEPS
    return np.where(code > 0, maximum * np.exp((steps - 1) * math.log(RANGE)), 0.0)


def encode_coordinates(coordinates: np.ndarray) -> np.ndarray:
    """Coordinates (any shape) as int16, clipped to what fits."""
    limit = 32767 / SUBPIXELS
    rounded: np.ndarray = np.round(np.clip(np.nan_to_num(coordinates), -limit, limit) * SUBPIXELS)
    return rounded.astype(np.int16)


def deflate_base64(arrays: Sequence[np.ndarray]) -> str:
    """Concatenate 16-bit arrays (little-endian), deflate them, and encode the result in base64."""
    raw = b"".join(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes() for array in arrays)
    return base64.b64encode(zlib.compress(raw, 6)).decode()


class PackedArrays:
    """Named arrays of one length for the page."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.arrays: list[np.ndarray] = []
        self.maxima: dict[str, float] = {}

    def add_integers(self, name: str, values: np.ndarray) -> None:
        """Integers in [-1, 65534]; -1 is coded as 65535."""
        self._add(name, (np.asarray(values).astype(np.int64) & 0xFFFF).astype(np.uint16))

    def add_numbers(self, name: str, values: np.ndarray) -> None:
        """Numbers >= 0, coded by :func:`encode_log`."""
        code, self.maxima[name] = encode_log(values)
        self._add(name, code)

    def add_boxes(self, name: str, values: np.ndarray) -> None:
        """(n,4) boxes in pixels of the image as shown: four arrays, ``name0`` to ``name3``."""
        for i, column in enumerate(encode_coordinates(values).T):
            self._add(f"{name}{i}", column.view(np.uint16))

    def to_dict(self) -> dict[str, object]:
        """What the page reads: names in order, length, maxima, data."""
        length = len(self.arrays[0]) if self.arrays else 0
        rounded = {name: float(f"{value:.6g}") for name, value in self.maxima.items()}
        return {"names": self.names, "length": length, "max": rounded, "data": deflate_base64(self.arrays)}

    def _add(self, name: str, array: np.ndarray) -> None:
        self.names.append(name)
        self.arrays.append(array)
