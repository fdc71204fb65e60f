"""One picture of the page: the photograph, its objects, and what each method's stages told their places."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from poise.lab.explain import Stage
from poise.lab.packing import Planes
from poise.lab.views import ImageView, ObjectView
from poise.structures import QueryPredictions

LONGEST = 960  # pixels of a picture's longer side on the page
MOST_OBJECTS = 400  # of an image that can be chosen; the largest are kept
MOST_LISTED = 24_000  # places of all objects of an image together
MOST_OF_ONE = 400  # places of one object
LEAST_OF_ONE = 24


@dataclass(frozen=True)
class Photograph:
    """An image of the data set with its objects."""

    name: str
    image: Tensor  # (3,H,W) uint8
    boxes: np.ndarray  # (n,4) xyxy in pixels of the image
    labels: np.ndarray  # (n,)
    crowd: np.ndarray  # (n,) bool: regions that are not objects to be found

    @property
    def scale(self) -> float:
        """From pixels of the image to those of the picture shown."""
        return min(1.0, LONGEST / max(self.image.shape[1:]))

    def shown(self) -> list[int]:
        """Numbers of the objects that can be chosen: those to be found, the largest where there are too many."""
        found = [i for i in range(len(self.labels)) if not self.crowd[i]]
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        kept = sorted(found, key=lambda i: -float(sides[i].prod()))[:MOST_OBJECTS]
        return sorted(kept)

    def to_dict(self) -> dict[str, Any]:
        """The picture as JPEG and its objects, for the page."""
        height, width = self.image.shape[1:]
        size = max(1, round(width * self.scale)), max(1, round(height * self.scale))
        picture = Image.fromarray(self.image.permute(1, 2, 0).numpy())
        stream = io.BytesIO()
        picture.resize(size, Image.Resampling.LANCZOS).save(stream, "JPEG", quality=82)
        boxes = np.round(self.boxes * self.scale, 1)
        objects = [[i, int(self.labels[i]), *boxes[i].tolist()] for i in self.shown()]
        return {
            "name": self.name,
            "size": list(size),
            "original": [width, height],
            "jpeg": base64.b64encode(stream.getvalue()).decode(),
            "objects": objects,
            "hidden": int((~self.crowd).sum()) - len(objects),
        }


def stages_to_dict(
    stages: Mapping[str, Stage], photograph: Photograph, factor: np.ndarray, classes: np.ndarray
) -> dict[str, Any]:
    """The stages of one method on one image (each stage holds that image alone).

    Args:
        factor: (4,) what boxes of the network's input are multiplied by to be in pixels of the image.
        classes: (C,) the data's class of each of the model's, -1 where it has none.
    """
    factor, shown = factor * photograph.scale, photograph.shown()
    return {name: _stage_to_dict(stage, shown, factor, classes) for name, stage in stages.items()}


def _stage_to_dict(stage: Stage, objects: Sequence[int], factor: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    view = stage.of_image(0)
    sizes = stage.priors.level_sizes
    starts = np.cumsum([0, *sizes])[:-1].tolist()
    strides = [float(stage.priors.strides[start]) for start in starts]
    cells = (view.priors if stage.free else stage.priors.cells[0]).numpy() * factor
    return {
        "levels": [
            {"start": start, "places": n, "stride": s} for start, n, s in zip(starts, sizes, strides, strict=True)
        ],
        "regions": stage.free,
        "queries": isinstance(stage.predictions, QueryPredictions),
        "places": _places(stage, view, cells, view.boxes.numpy() * factor, classes),
        "lists": _lists(view, objects),
    }


def _places(stage: Stage, view: ImageView, cells: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    """What the page knows of every place."""
    owner, overlap = view.nearest
    planes = Planes()
    planes.boxes("cell", cells)
    planes.boxes("box", boxes)
    best, label = view.scores.nan_to_num().max(1)
    planes.whole("owner", view.index.numpy())
    planes.whole("nearest", owner.numpy())
    planes.whole("label", classes[label.numpy()])
    planes.whole("within", view.within.numpy())
    planes.whole("weighed", stage.weighed[0].numpy())
    for name, values in (
        ("score", best),
        ("iou", overlap),
        ("positive", view.positive),
        ("negative", stage.negative[0]),
        ("regression", view.regression),
    ):
        planes.number(name, values.numpy())
    return planes.result()


def _lists(view: ImageView, objects: Sequence[int]) -> dict[str, Any]:
    """Of each object the places that matter to it: all positives first, then the best by score x IoU.

    Others are places whose center lies within it or whose box overlaps it by more than a tenth.
    """
    most = min(MOST_OF_ONE, max(LEAST_OF_ONE, MOST_LISTED // max(len(objects), 1)))
    parts = [(view.of_object(number), number) for number in objects]
    kept = [_ranked(part, view.inside(number), most) for part, number in parts]
    planes = Planes()
    index = _joined(kept)
    planes.whole("place", index & 0xFFFF)
    planes.whole("high", index >> 16)
    for name in ("positive", "negative", "regression", "score", "iou", "chosen"):
        values = _joined([getattr(part, name).numpy()[places] for (part, _), places in zip(parts, kept, strict=True)])
        if name == "chosen":
            planes.whole(name, values)
        else:
            planes.number(name, values)
    counts = [int(part.chosen.sum()) for part, _ in parts]
    return {"lengths": [len(places) for places in kept], "positives": counts, **planes.result()}


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _ranked(view: ObjectView, inside: Tensor, most: int) -> np.ndarray:
    positive = view.positive.numpy()
    promise = (view.score * view.iou).numpy()
    near = view.chosen | inside | (view.iou > 0.1) | (view.positive > 0)
    places = near.numpy().nonzero()[0]
    order = np.lexsort((-promise[places], -positive[places]))
    return places[order[:most]]
