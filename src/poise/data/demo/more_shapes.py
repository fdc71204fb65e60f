"""Outlines of sixteen further classes: the scenes on which the network of ``--weights demo`` was trained show these."""

from __future__ import annotations

import numpy as np

from poise.data.demo.shapes import Draw, Outline, wheel


def heart(rng: np.random.Generator) -> Outline:
    """A parametric curve with a notch and a tip."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return [(np.stack((x, y), 1) / 17, True)]


def arrow(rng: np.random.Generator) -> Outline:
    """A shaft with a triangular head."""
    a, neck = rng.uniform(0.16, 0.3), rng.uniform(-0.1, 0.3)
    points = [(-1, -a), (neck, -a), (neck, -0.75), (1, 0), (neck, 0.75), (neck, a), (-1, a)]
    return [(np.array(points), True)]


def hexagon(rng: np.random.Generator) -> Outline:
    return [(wheel(np.ones(6)), True)]


def half_disc(rng: np.random.Generator) -> Outline:
    angle = np.linspace(0, np.pi, 32)
    return [(np.stack((np.cos(angle), np.sin(angle)), 1), True)]


def hourglass(rng: np.random.Generator) -> Outline:
    waist = rng.uniform(0.05, 0.22)
    return [(np.array([(-0.8, -1), (0.8, -1), (waist, 0), (0.8, 1), (-0.8, 1), (-waist, 0)]), True)]


def house(rng: np.random.Generator) -> Outline:
    """A rectangle under a gable roof."""
    eaves = rng.uniform(-0.35, 0.05)
    return [(np.array([(-0.75, 0.9), (-0.75, eaves), (0, -1), (0.75, eaves), (0.75, 0.9)]), True)]


def chevron(rng: np.random.Generator) -> Outline:
    """A band folded once at a right angle or wider."""
    thick = rng.uniform(0.5, 0.8)
    points = [(-0.9, -0.7), (0, 0.2), (0.9, -0.7), (0.9, -0.7 + thick), (0, 0.2 + thick), (-0.9, -0.7 + thick)]
    return [(np.array(points), True)]


def bolt(rng: np.random.Generator) -> Outline:
    """A flash of lightning: two slanted halves, displaced."""
    points = [(0.25, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.25, 1), (0.6, -0.2), (0.05, -0.2)]
    return [(np.array(points), True)]


def flower(rng: np.random.Generator) -> Outline:
    """Four to six round petals."""
    angle = np.arange(96) * (2 * np.pi / 96)
    return [(wheel(0.72 + rng.uniform(0.2, 0.28) * np.cos(rng.integers(4, 7) * angle)), True)]


def drop(rng: np.random.Generator) -> Outline:
    """A round end and a tip."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    slim = rng.uniform(1.2, 2.0)
    return [(np.stack((np.cos(angle), 0.9 * np.sin(angle) * np.sin(angle / 2) ** slim), 1), True)]


def frame(rng: np.random.Generator) -> Outline:
    """A square with a square hole."""
    outer = np.array([(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)])
    return [(outer, True), (outer * rng.uniform(0.45, 0.7), False)]


def tee(rng: np.random.Generator) -> Outline:
    """A bar across the end of another."""
    a = rng.uniform(0.2, 0.36)
    points = [(-0.9, -1), (0.9, -1), (0.9, -1 + 2 * a), (a, -1 + 2 * a), (a, 1), (-a, 1), (-a, -1 + 2 * a)]
    return [(np.array([*points, (-0.9, -1 + 2 * a)]), True)]


def aitch(rng: np.random.Generator) -> Outline:
    """Two bars with a shorter one between them."""
    a, b = rng.uniform(0.3, 0.5), rng.uniform(0.16, 0.28)
    right = [(0.9, -1), (0.9, 1), (0.9 - a, 1), (0.9 - a, b), (-0.9 + a, b), (-0.9 + a, 1)]
    return [
        (np.array([*right, (-0.9, 1), (-0.9, -1), (-0.9 + a, -1), (-0.9 + a, -b), (0.9 - a, -b), (0.9 - a, -1)]), True)
    ]


def sector(rng: np.random.Generator) -> Outline:
    """A disc without a wedge."""
    half = rng.uniform(0.45, 0.8)
    angle = np.linspace(half, 2 * np.pi - half, 44)
    return [(np.concatenate((np.stack((np.cos(angle), np.sin(angle)), 1), [(0.0, 0.0)])), True)]


def pinwheel(rng: np.random.Generator) -> Outline:
    """Three to five blades, each with one radial edge."""
    blades = rng.integers(3, 6)
    ramp = np.linspace(rng.uniform(0.3, 0.42), 1.0, 12)
    return [(wheel(np.tile(ramp, blades)), True)]


def leaf(rng: np.random.Generator) -> Outline:
    """Two arcs that meet at two tips."""
    t = np.linspace(-1, 1, 24)
    side = rng.uniform(0.4, 0.55) * (1 - t**2)
    return [(np.concatenate((np.stack((t, -side), 1), np.stack((t, side), 1)[-2:0:-1])), True)]


MORE_CLASSES: dict[str, Draw] = {
    draw.__name__: draw
    for draw in (
        heart, arrow, hexagon, half_disc, hourglass, house, chevron, bolt,
        flower, drop, frame, tee, aitch, sector, pinwheel, leaf,
    )
}  # fmt: skip
