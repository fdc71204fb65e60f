"""Decoding every image of a split and noting what is wrong with it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from poise.data.errors import BadImage
from poise.data.faults import Fault
from poise.data.image_set import ImageSet
from poise.data.images import TURNED, image_size, is_dark, orientation, read_pixels, size_difference

Report = Callable[[int, int], None]  # images done, images in all


@dataclass(frozen=True)
class Inspection:
    """What one image file showed."""

    file: str
    faults: tuple[Fault, ...]
    digest: bytes = b""  # of the pixels; empty where the image was not decoded


def inspect_images(
    image_set: ImageSet, full: bool = True, workers: int | None = None, report: Report | None = None
) -> list[Inspection]:
    """Inspect every image.

    Threads do the work: decoding and hashing leave Python's lock free.

    Args:
        image_set: whose images to read.
        full: decode and hash them; else only the headers are read.
        workers: threads; by default all cores.
        report: called after each image.
    """
    count = len(image_set)
    results = []
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for done, result in enumerate(pool.map(lambda i: _inspect(image_set, i, full), range(count)), 1):
            results.append(result)
            if report is not None:
                report(done, count)
    return results


def _inspect(image_set: ImageSet, index: int, full: bool) -> Inspection:
    file, path = image_set.images.files[index], image_set.path(index)
    annotated = int(image_set.images.widths[index]), int(image_set.images.heights[index])
    try:
        turn = orientation(path)
        pixels = read_pixels(path, annotated) if full else None
        if pixels is None:
            _compare_header(path, turn, annotated)
    except BadImage as error:
        return Inspection(file, (Fault(error.kind, file, error.why),))
    notes = [] if turn == 1 else [Fault("image-exif-rotated", file, _turning(path, turn, annotated))]
    if pixels is not None and is_dark(path, pixels):
        why = f"its brightest pixel is {pixels.max()} of 255; multiply its values so that they use 16 bits"
        notes.append(Fault("image-dark", file, why))
    return Inspection(file, tuple(notes), b"" if pixels is None else _digest(pixels))


def _compare_header(path: Path, turn: int, annotated: tuple[int, int]) -> None:
    shown = image_size(path)
    stored = shown[::-1] if turn in TURNED else shown
    if annotated not in (shown, stored):
        raise size_difference(path, shown, annotated)


def _turning(path: Path, turn: int, annotated: tuple[int, int]) -> str:
    applied = image_size(path) == annotated
    return f"orientation {turn}, " + ("applied" if applied else "not applied: annotated as stored")


def _digest(pixels: np.ndarray) -> bytes:
    """Of size and pixels: a copy in another lossless format or with another header has the same."""
    hashed = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    hashed.update(pixels.tobytes())
    return hashed.digest()
