"""Composes demo scenes: which objects, how large, in which order, and what of them is to be found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from poise.data.demo.more_shapes import MORE_CLASSES
from poise.data.demo.shapes import CLASSES, CLUTTER, Draw, Outline, coverage, placed
from poise.data.demo.textures import background, expose, surface

CLASS_NAMES = tuple(CLASSES)
SHAPES = {"shapes": CLASSES, "more_shapes": MORE_CLASSES}  # sets of classes, by the name of the set
LEAST_VISIBLE = 0.3  # objects of which less is seen become ignore regions …
LEAST_SEEN = 0.05  # … and of which even less is seen are not annotated
LEAST_EXTENT = 5  # pixels of the longer side of what is seen, for an object to be annotated
NOTHING = -1  # a layer that belongs to no object


@dataclass(frozen=True)
class SceneStyle:
    """What scenes are made of. Sizes are of an object's longer side, in pixels where the image is 320 px wide."""

    least_size: float = 8.0
    most_size: float = 200.0
    usual_objects: float = 6.5  # mean of an exponential distribution …
    most_objects: int = 20  # … cut here, and one more
    empty: float = 0.08  # share of scenes without objects
    crowded: float = 0.12  # share of scenes with 30 to 54 objects of at most 60 px
    swarm: float = 0.05  # share of scenes with a crowd region of tiny objects
    clutter: tuple[int, int] = (2, 9)  # least, and one more than most, of the things that are not to be found


STYLES = {
    "hard": SceneStyle(),  # tells methods apart
    "plain": SceneStyle(40, 80, usual_objects=12, most_objects=12, empty=0.03, crowded=0, swarm=0, clutter=(0, 3)),
}


@dataclass(frozen=True)
class DemoObject:
    """What the annotation of an object states; boxes enclose the visible pixels, as in COCO."""

    label: int
    box: tuple[int, int, int, int]  # x, y, width, height
    area: int  # visible pixels
    crowd: bool


@dataclass(frozen=True)
class DemoScene:
    """A picture and what is to be found in it."""

    image: Image.Image
    objects: tuple[DemoObject, ...]


@dataclass
class _Canvas:
    """A picture under construction: its colors, and which object each pixel shows."""

    drawings: tuple[Draw, ...]  # of the classes
    picture: np.ndarray  # (H,W,3) float32
    owner: np.ndarray  # (H,W) int32, number of the object, or NOTHING
    labels: list[int] = field(default_factory=list)
    full_areas: list[int] = field(default_factory=list)
    crowds: list[DemoObject] = field(default_factory=list)


def demo_scene(
    rng: np.random.Generator,
    size: int = 320,
    style: SceneStyle = STYLES["hard"],
    classes: Mapping[str, Draw] = CLASSES,
) -> DemoScene:
    """A random scene whose longer side is at most ``size`` pixels, with objects of the classes."""
    height, width = _extent(rng, size)
    drawings = tuple(classes.values())
    canvas = _Canvas(drawings, background(rng, height, width), np.full((height, width), NOTHING, np.int32))
    scale = size / 320
    kind = rng.random()
    crowded = style.empty <= kind < style.empty + style.crowded
    count = 0
    if crowded:
        count = int(rng.integers(30, 55))
    elif kind >= style.empty:
        count = 1 + int(min(rng.exponential(style.usual_objects), style.most_objects))
    if 0 <= kind - (style.empty + style.crowded) < style.swarm:
        _swarm(canvas, rng, scale)
    sizes = scale * _sizes(rng, count, style.least_size, 60.0 if crowded else style.most_size)
    stack = [(wanted, True) for wanted in sizes]
    stack += [(rng.uniform(14, 110) * scale, False) for _ in range(rng.integers(*style.clutter))]
    for wanted, is_object in sorted(stack, key=lambda item: -item[0] * rng.uniform(0.5, 1.5)):
        label = int(rng.integers(len(drawings))) if is_object else NOTHING
        _add(canvas, rng, min(wanted, 0.95 * min(height, width)), label)
    return DemoScene(expose(rng, canvas.picture), (*_objects(canvas), *canvas.crowds))


def _extent(rng: np.random.Generator, size: int) -> tuple[int, int]:
    """Height and width: several sizes and aspect ratios, two thirds of them wide."""
    longer = int(size * rng.uniform(0.75, 1.0))
    shorter = int(longer / rng.uniform(1.0, 1.8))
    return (longer, shorter) if rng.random() < 1 / 3 else (shorter, longer)


def _sizes(rng: np.random.Generator, count: int, least: float, greatest: float) -> np.ndarray:
    """Sizes spread over their logarithm, with the middle a little likelier."""
    return least * (greatest / least) ** rng.beta(1.5, 1.3, count)


def _add(canvas: _Canvas, rng: np.random.Generator, size: float, label: int) -> None:
    """Paint an object of a class, or clutter, at a random position, where the border may cut it."""
    draw = canvas.drawings[label] if label != NOTHING else CLUTTER[rng.integers(len(CLUTTER))]
    cover = coverage(placed(draw(rng), size, rng))
    high, wide = cover.shape
    height, width = canvas.owner.shape
    y = int(rng.integers(-high // 4, max(height - 3 * high // 4, 1)))
    x = int(rng.integers(-wide // 4, max(width - 3 * wide // 4, 1)))
    _paint(canvas, rng, cover, y, x, label)


def _paint(canvas: _Canvas, rng: np.random.Generator, cover: np.ndarray, y: int, x: int, label: int) -> None:
    """Put a covered area into the picture, with its top left at (y, x), and note what it hides."""
    high, wide = cover.shape
    height, width = canvas.owner.shape
    top, left, bottom, right = max(y, 0), max(x, 0), min(y + high, height), min(x + wide, width)
    if bottom <= top or right <= left:
        return
    part = cover[top - y : bottom - y, left - x : right - x]
    under = canvas.picture[top:bottom, left:right]
    skin = _skin(rng, high, wide, under)[top - y : bottom - y, left - x : right - x]
    under += (part * np.float32(rng.uniform(0.8, 1.0)))[..., None] * (skin - under)
    number = NOTHING
    if label != NOTHING:
        number = len(canvas.labels)
        canvas.labels.append(label)
        canvas.full_areas.append(int((cover > 0.5).sum()))
    canvas.owner[top:bottom, left:right][part > 0.5] = number


def _skin(rng: np.random.Generator, height: int, width: int, under: np.ndarray) -> np.ndarray:
    """A surface whose mean differs visibly from what it will hide."""
    ground = under.mean((0, 1))
    contrast = rng.uniform(0, 0.9) if min(height, width) > 16 else rng.uniform(0, 0.3)
    skin = surface(rng, height, width, contrast)
    difference = skin.mean((0, 1)) - ground
    distance, least = float(np.abs(difference).max()), rng.uniform(35, 70)
    if distance < least:
        direction = difference / max(distance, 1.0) if distance > 1 else np.ones(3, np.float32)
        away = np.where(ground + direction * least > 245, -1, 1) * np.abs(direction)
        skin = skin + (ground + away * np.float32(least) - skin.mean((0, 1)))
    return skin


def _swarm(canvas: _Canvas, rng: np.random.Generator, scale: float) -> None:
    """A crowd of tiny objects of one class, too many to annotate one by one: a single crowd region."""
    height, width = canvas.owner.shape
    label = int(rng.integers(len(canvas.drawings)))
    high, wide = int(rng.uniform(50, 90) * scale), int(rng.uniform(60, 120) * scale)
    y, x = int(rng.integers(0, max(height - high, 1))), int(rng.integers(0, max(width - wide, 1)))
    before = canvas.owner.copy()
    count = len(canvas.labels)
    for _ in range(rng.integers(30, 60)):
        outline: Outline = placed(canvas.drawings[label](rng), rng.uniform(6, 11) * scale, rng)
        cover = coverage(outline)
        _paint(canvas, rng, cover, y + int(rng.integers(0, high)), x + int(rng.integers(0, wide)), label)
    shown = canvas.owner >= count
    canvas.owner[:] = before
    del canvas.labels[count:], canvas.full_areas[count:]
    if shown.any():
        canvas.crowds.append(DemoObject(label, _box(shown), int(shown.sum()), crowd=True))


def _objects(canvas: _Canvas) -> list[DemoObject]:
    """The annotations: an object's box encloses those of its pixels that are seen."""
    found = []
    for number, (label, full) in enumerate(zip(canvas.labels, canvas.full_areas, strict=True)):
        shown = canvas.owner == number
        seen = int(shown.sum())
        if seen < max(LEAST_SEEN * full, 1):
            continue
        box = _box(shown)
        hidden = seen < LEAST_VISIBLE * full or max(box[2:]) < LEAST_EXTENT
        found.append(DemoObject(label, box, seen, crowd=hidden))
    return found


def _box(shown: np.ndarray) -> tuple[int, int, int, int]:
    """x, y, width and height of the true pixels' extent."""
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)
