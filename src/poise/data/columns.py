"""Columns that stay small and quick to share with worker processes, whatever the number of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Strings:
    """Many strings in one buffer: no Python object a string, so nothing is copied when processes fork."""

    buffer: np.ndarray  # (bytes,) uint8, UTF-8
    offsets: np.ndarray  # (n+1,) int64

    @staticmethod
    def of(values: Sequence[str]) -> Strings:
        encoded = [value.encode("utf-8", "surrogatepass") for value in values]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(value) for value in encoded], out=offsets[1:])
        return Strings(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        part = self.buffer[self.offsets[index] : self.offsets[index + 1]]
        return part.tobytes().decode("utf-8", "surrogatepass")

    def tolist(self) -> list[str]:
        return [self[i] for i in range(len(self))]

    def take(self, indices: np.ndarray) -> Strings:
        rows, offsets = _rows(self.offsets, indices)
        return Strings(self.buffer[rows], offsets)


@dataclass(frozen=True, eq=False)
class Ragged:
    """Many short lists of integers (LVIS: category ids of each image) in one array."""

    values: np.ndarray  # (total,) int64
    offsets: np.ndarray  # (n+1,) int64

    @staticmethod
    def of(rows: Sequence[Sequence[int]]) -> Ragged:
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return Ragged(np.array([value for row in rows for value in row], np.int64), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> tuple[int, ...]:
        return tuple(self.values[self.offsets[index] : self.offsets[index + 1]].tolist())

    def take(self, indices: np.ndarray) -> Ragged:
        rows, offsets = _rows(self.offsets, indices)
        return Ragged(self.values[rows], offsets)


@dataclass(frozen=True, eq=False)
class BoxColumn:
    """Boxes that are no objects (proposals) of each image."""

    values: np.ndarray  # (total,4) float32, xyxy pixels
    offsets: np.ndarray  # (n+1,) int64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def take(self, indices: np.ndarray) -> BoxColumn:
        rows, offsets = _rows(self.offsets, indices)
        return BoxColumn(self.values[rows], offsets)


def _rows(offsets: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the parts ``indices`` of a column one after another, and where each part begins there."""
    counts = np.diff(offsets)[indices]
    begins = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    return np.repeat(offsets[indices] - begins[:-1], counts) + np.arange(begins[-1]), begins


def ids_column(ids: Sequence[int | str]) -> np.ndarray | Strings:
    """Integers as int64; anything else as strings."""
    if all(isinstance(value, int) for value in ids):
        return np.array(ids, np.int64)
    return Strings.of([str(value) for value in ids])
