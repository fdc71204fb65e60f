"""Outlines of the demo's classes and of the clutter that belongs to no class, as polygons of about unit radius."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

Points = np.ndarray  # (n,2) float64, x and y
Outline = list[tuple[Points, bool]]  # polygons drawn one over the other: filled (True) or cut out (False)
Draw = Callable[[np.random.Generator], Outline]


def _circle(radius: float = 1.0, x: float = 0.0, y: float = 0.0, corners: int = 56) -> Points:
    angle = np.arange(corners) * (2 * np.pi / corners)
    return np.stack((x + radius * np.cos(angle), y + radius * np.sin(angle)), 1)


def wheel(radii: np.ndarray) -> Points:
    """Corners at equal angles and the given distances from the center."""
    angle = np.arange(len(radii)) * (2 * np.pi / len(radii))
    return np.stack((radii * np.cos(angle), radii * np.sin(angle)), 1)


def disc(rng: np.random.Generator) -> Outline:
    return [(_circle(), True)]


def ring(rng: np.random.Generator) -> Outline:
    return [(_circle(), True), (_circle(rng.uniform(0.45, 0.72)), False)]


def square(rng: np.random.Generator) -> Outline:
    return [(np.array([(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]), True)]


def triangle(rng: np.random.Generator) -> Outline:
    return [(wheel(rng.uniform(0.9, 1.1, 3)), True)]


def star(rng: np.random.Generator) -> Outline:
    """Four to seven points."""
    radii = np.ones(2 * rng.integers(4, 8))
    radii[1::2] = rng.uniform(0.36, 0.5)
    return [(wheel(radii), True)]


def cross(rng: np.random.Generator) -> Outline:
    """Two bars of one length at a right angle."""
    a = rng.uniform(0.22, 0.36)
    arm = [(a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a), (-a, -1)]
    return [(np.array(arm), True)]


def crescent(rng: np.random.Generator) -> Outline:
    return [(_circle(), True), (_circle(rng.uniform(0.72, 0.88), x=rng.uniform(0.42, 0.58)), False)]


def gear(rng: np.random.Generator) -> Outline:
    """Seven to eleven teeth, mostly around a hole."""
    teeth = rng.integers(7, 12)
    radii = np.tile([1.0, 1.0, 0.74, 0.74], teeth)
    outline: Outline = [(wheel(radii), True)]
    return [*outline, (_circle(rng.uniform(0.2, 0.36)), False)] if rng.random() < 0.6 else outline


CLASSES: dict[str, Draw] = {
    "disc": disc,
    "ring": ring,
    "square": square,
    "triangle": triangle,
    "star": star,
    "cross": cross,
    "crescent": crescent,
    "gear": gear,
}


def blob(rng: np.random.Generator) -> Outline:
    """Clutter: a closed wavy outline."""
    angle = np.arange(48) * (2 * np.pi / 48)
    radii = 0.7 + sum(rng.uniform(-0.22, 0.22) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in (1, 2, 3, 5))
    return [(wheel(np.maximum(radii, 0.15)), True)]


def bar(rng: np.random.Generator) -> Outline:
    a = rng.uniform(0.08, 0.2)
    return [(np.array([(-1.2, -a), (1.2, -a), (1.2, a), (-1.2, a)]), True)]


def arc(rng: np.random.Generator) -> Outline:
    """Clutter: a part of a ring."""
    angle = np.linspace(0, rng.uniform(1.5, 3.6), 24)
    inner = rng.uniform(0.7, 0.85)
    outside = np.stack((np.cos(angle), np.sin(angle)), 1)
    return [(np.concatenate((outside, inner * outside[::-1])), True)]


def hook(rng: np.random.Generator) -> Outline:
    a, b = rng.uniform(0.25, 0.45), rng.uniform(0.4, 1.0)
    return [(np.array([(-0.8, -1), (-0.8 + a, -1), (-0.8 + a, 1 - a), (b, 1 - a), (b, 1), (-0.8, 1)]), True)]


def zigzag(rng: np.random.Generator) -> Outline:
    """Clutter: a folded band."""
    count, thick = rng.integers(4, 7), rng.uniform(0.18, 0.32)
    x = np.linspace(-1.1, 1.1, count)
    y = np.where(np.arange(count) % 2, 0.35, -0.35)
    return [(np.concatenate((np.stack((x, y - thick / 2), 1), np.stack((x, y + thick / 2), 1)[::-1])), True)]


CLUTTER: tuple[Draw, ...] = (blob, bar, arc, hook, zigzag)


def placed(outline: Outline, size: float, rng: np.random.Generator, stretch: float = 1.35) -> Outline:
    """The outline turned at random, stretched a little and scaled so that its longer side measures ``size`` pixels."""
    angle, ratio = rng.uniform(0, 2 * np.pi), rng.uniform(1, stretch)
    axis = rng.uniform(0, 2 * np.pi)
    turn = _rotation(axis) @ np.diag((1.0, 1 / ratio)) @ _rotation(angle - axis)
    turned = [(points @ turn.T, filled) for points, filled in outline]
    low, high = turned[0][0].min(0), turned[0][0].max(0)
    return [((points - low) * (size / (high - low).max()), filled) for points, filled in turned]


def _rotation(angle: float) -> np.ndarray:
    return np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])


def coverage(outline: Outline) -> np.ndarray:
    """How much of each pixel the outline covers, (h,w) float32 in [0,1]; the outline begins at (0,0)."""
    width, height = np.ceil(outline[0][0].max(0)).astype(int) + 1
    fine = 4 if max(width, height) < 48 else 2
    canvas = Image.new("L", (int(width) * fine, int(height) * fine))
    draw = ImageDraw.Draw(canvas)
    for points, filled in outline:
        corners = np.rint(points * fine).astype(int)
        draw.polygon([(int(x), int(y)) for x, y in corners], fill=255 if filled else 0)
    return np.asarray(canvas.reduce(fine), dtype=np.float32) / 255
