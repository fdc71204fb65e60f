"""Surfaces of the demo's backgrounds and objects, and what a camera does to a picture."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter


def noise(rng: np.random.Generator, height: int, width: int, octaves: int = 4) -> np.ndarray:
    """Smooth noise of several scales, (height,width) float32, roughly in [0,1]."""
    total = np.zeros((height, width), np.float32)
    weight, cells = 1.0, int(rng.integers(2, 6))
    for _ in range(octaves):
        shape = (min(cells, height) + 1, min(cells * max(1, round(width / height)), width) + 1)
        grid = Image.fromarray(rng.random(shape, dtype=np.float32))
        total += weight * np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))
        weight, cells = weight * 0.6, cells * 2
    return total / sum(0.6**k for k in range(octaves))


def _plane(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A ramp in a random direction, in pixels."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.ogrid[:height, :width]
    ramp: np.ndarray = np.cos(angle) * x + np.sin(angle) * y
    return ramp.astype(np.float32)


def gradient(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a linear ramp in a random direction, (height,width) in [0,1]."""
    ramp = _plane(rng, height, width)
    scaled: np.ndarray = (ramp - ramp.min()) / max(float(np.ptp(ramp)), 1.0)
    return scaled


def stripes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Soft or hard waves in one direction, (height, width) in [0,1]."""
    period = rng.uniform(3, max(4.0, min(height, width) / 3))
    wave = np.sin(_plane(rng, height, width) * (2 * np.pi / period) + rng.uniform(0, 6.3))
    return np.clip(wave * rng.uniform(0.5, 4) + 0.5, 0, 1)


def checks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Two crossed sets of the same stripes, (height, width) in [0,1]."""
    state = rng.bit_generator.state
    first = stripes(rng, height, width)
    rng.bit_generator.state = state
    crossed: np.ndarray = np.abs(first - np.rot90(stripes(rng, width, height)))
    return crossed


def speckle(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return np.clip((noise(rng, height, width, 5) - 0.5) * rng.uniform(3, 9) + 0.5, 0, 1)


def flat(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return np.zeros((height, width), np.float32)


PATTERNS = (noise, gradient, stripes, checks, speckle, flat)


def surface(rng: np.random.Generator, height: int, width: int, contrast: float) -> np.ndarray:
    """A colored surface (height,width,3) float32 in about 0..255: a pattern between two colors, and grain."""
    pattern = PATTERNS[rng.integers(len(PATTERNS))](rng, height, width)[..., None]
    first = _color(rng)
    second = first + (_color(rng) - first) * np.float32(contrast)
    mixed: np.ndarray = first + (second - first) * pattern
    return mixed


def _color(rng: np.random.Generator) -> np.ndarray:
    """RGB (3,) float32, from nearly gray to saturated."""
    color = rng.uniform(20, 235, 3)
    gray = color.mean()
    faded: np.ndarray = gray + (color - gray) * rng.uniform(0.15, 1.0)
    return faded.astype(np.float32)


def background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """One surface, or two that meet along an irregular border, modulated by large-scale noise."""
    picture = surface(rng, height, width, rng.uniform(0.15, 0.8))
    if rng.random() < 0.5:
        border = noise(rng, height, width, 4) + 0.8 * gradient(rng, height, width)
        side = np.clip((border - np.median(border)) * rng.uniform(4, 30) + 0.5, 0, 1)[..., None]
        picture += side * (surface(rng, height, width, rng.uniform(0.15, 0.8)) - picture)
    noisy: np.ndarray = picture + (noise(rng, height, width, 5)[..., None] - 0.5) * np.float32(rng.uniform(10, 70))
    return noisy


def expose(rng: np.random.Generator, picture: np.ndarray) -> Image.Image:
    """Uneven light, contrast, focus and sensor noise; the picture as 8-bit RGB."""
    height, width = picture.shape[:2]
    light = 1 + rng.uniform(0, 0.5) * (gradient(rng, height, width) - 0.5)
    middle, contrast = np.float32(rng.uniform(95, 160)), np.float32(rng.uniform(0.55, 1.15))
    picture = (picture * light[..., None].astype(np.float32) - 127) * contrast + middle
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3)))
    strength = rng.uniform(0, 9)
    grain = rng.standard_normal((height, width, 1), dtype=np.float32) * np.float32(strength)
    return Image.fromarray(np.clip(np.asarray(image, np.float32) + grain, 0, 255).astype(np.uint8))
