"""Similarities of two boxes from their articles' formulas, in Python's numbers, and the box that STAL tests."""

from __future__ import annotations

import math
from collections.abc import Callable

from poise.similarities import GCD, NWD, SimD

Box = list[float]


def parts(box: Box) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def nwd(a: Box, b: Box, scale: float) -> float:
    """The Wasserstein distance of Gaussians with the deviations w / 2 and h / 2."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = parts(a), parts(b)
    return math.exp(-math.dist((ax, ay, aw / 2, ah / 2), (bx, by, bw / 2, bh / 2)) / scale)


def simd(a: Box, b: Box, m: float, n: float) -> float:
    (ax, ay, aw, ah), (bx, by, bw, bh) = parts(a), parts(b)
    across, along = 1 / m * (aw + bw), 1 / n * (ah + bh)
    return math.exp(
        -math.hypot((ax - bx) / across, (ay - by) / along) - math.hypot((aw - bw) / across, (ah - bh) / along)
    )


def gcd(a: Box, b: Box) -> float:
    (ax, ay, aw, ah), (bx, by, bw, bh) = parts(a), parts(b)
    squared = 0.0
    for w, h in ((aw, ah), (bw, bh)):
        squared += ((ax - bx) / w) ** 2 + ((ay - by) / h) ** 2 + (((aw - bw) / w) ** 2 + ((ah - bh) / h) ** 2) / 4
    return math.exp(-math.sqrt(squared / 2))


def literal(similarity: NWD | SimD | GCD) -> Callable[[Box, Box], float]:
    """The function of two boxes that a similarity stands for."""
    if isinstance(similarity, NWD):
        return lambda a, b: nwd(a, b, similarity.scale)
    if isinstance(similarity, SimD):
        return lambda a, b: simd(a, b, similarity.m, similarity.n)
    return gcd


def grown(box: Box, floor: float) -> Box:
    x, y, width, height = parts(box)
    width, height = max(width, floor), max(height, floor)
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
