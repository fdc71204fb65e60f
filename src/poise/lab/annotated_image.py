"""One image of the page: pixels, objects, and priors and loss weights of each stage of each method."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from poise.lab.explain import Stage
from poise.lab.packing import PackedArrays
from poise.lab.views import ImageView, ObjectView

MAX_SIDE = 960  # pixels of the longer side of an image on the page
MAX_OBJECTS = 400  # selectable objects of an image, the largest ones
MAX_LISTED_PRIORS = 24_000  # listed priors of all objects of an image together
MAX_PRIORS_PER_OBJECT = 400
MIN_PRIORS_PER_OBJECT = 24


@dataclass(frozen=True)
class AnnotatedImage:
    """An image of the data set with its objects."""

    name: str
    pixels: Tensor  # (3,H,W) uint8
    boxes: np.ndarray  # (n,4) xyxy in pixels of the image
    labels: np.ndarray  # (n,)
    crowd: np.ndarray  # (n,) bool: regions that are not objects to be found

    @property
    def scale(self) -> float:
        """Factor from pixels of the image to pixels of the image as shown."""
        return min(1.0, MAX_SIDE / max(self.pixels.shape[1:]))

    def selectable_objects(self) -> list[int]:
        """Indices of the objects that can be selected: the largest ``MAX_OBJECTS`` that are no crowds."""
        objects = [i for i in range(len(self.labels)) if not self.crowd[i]]
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        largest = sorted(objects, key=lambda i: -float(sides[i].prod()))[:MAX_OBJECTS]
        return sorted(largest)

    def to_dict(self) -> dict[str, object]:
        """The image as JPEG and its objects, for the page."""
        height, width = self.pixels.shape[1:]
        size = max(1, round(width * self.scale)), max(1, round(height * self.scale))
        picture = Image.fromarray(self.pixels.permute(1, 2, 0).numpy())
        stream = io.BytesIO()
        picture.resize(size, Image.Resampling.LANCZOS).save(stream, "JPEG", quality=82)
        boxes = np.round(self.boxes * self.scale, 1)
        objects = [[i, int(self.labels[i]), *boxes[i].tolist()] for i in self.selectable_objects()]
        return {
            "name": self.name,
            "size": list(size),
            "original": [width, height],
            "jpeg": base64.b64encode(stream.getvalue()).decode(),
            "objects": objects,
            "hidden_objects": int((~self.crowd).sum()) - len(objects),
        }


def stages_to_dict(
    stages: Mapping[str, Stage], image: AnnotatedImage, scale: np.ndarray, classes: np.ndarray
) -> dict[str, object]:
    """The stages of one method on one image, each a batch of this image alone.

    Args:
        scale: (4,) factor from boxes of the network's input to pixels of the image.
        classes: (C,) data set class of each class of the model, -1: none.
    """
    scale, objects = scale * image.scale, image.selectable_objects()
    return {name: _stage_to_dict(stage, objects, scale, classes) for name, stage in stages.items()}


def _stage_to_dict(stage: Stage, objects: Sequence[int], scale: np.ndarray, classes: np.ndarray) -> dict[str, object]:
    view = stage.image_view(0)
    sizes = stage.priors.level_sizes
    starts = np.cumsum([0, *sizes])[:-1].tolist()
    strides = [float(stage.priors.strides[start]) for start in starts]
    cells = (stage.priors.cells[0] if stage.on_grid else view.priors).numpy() * scale
    return {
        "levels": [
            {"start": start, "count": n, "stride": s} for start, n, s in zip(starts, sizes, strides, strict=True)
        ],
        "on_grid": stage.on_grid,
        "queries": stage.predictions.prior_kind == "queries",
        "priors": _pack_priors(stage, view, cells, view.boxes.numpy() * scale, classes),
        "lists": _pack_lists(view, objects),
    }


def _pack_priors(
    stage: Stage, view: ImageView, cells: np.ndarray, boxes: np.ndarray, classes: np.ndarray
) -> dict[str, object]:
    """Columns of all priors."""
    best_object, overlap = view.best_overlap
    arrays = PackedArrays()
    arrays.add_boxes("cell", cells)
    arrays.add_boxes("box", boxes)
    best, label = view.scores.nan_to_num().max(1)
    arrays.add_integers("object", view.index.numpy())
    arrays.add_integers("best_object", best_object.numpy())
    arrays.add_integers("label", classes[label.numpy()])
    arrays.add_integers("objects_at_center", view.objects_at_center.numpy())
    arrays.add_integers("in_loss", stage.in_loss[0].numpy())
    for name, values in (
        ("score", best),
        ("iou", overlap),
        ("positive", view.positive),
        ("negative", stage.negative[0]),
        ("regression", view.regression),
    ):
        arrays.add_numbers(name, values.numpy())
    return arrays.to_dict()


def _pack_lists(view: ImageView, objects: Sequence[int]) -> dict[str, object]:
    """Columns of the priors listed for each object: all positives first, then the others by score x IoU.

    Others are priors whose center lies in the object or whose box has an IoU above 0.1 with it.
    """
    limit = min(MAX_PRIORS_PER_OBJECT, max(MIN_PRIORS_PER_OBJECT, MAX_LISTED_PRIORS // max(len(objects), 1)))
    views = [(view.object_view(number), number) for number in objects]
    listed = [_rank_priors(one, view.centers_inside(number), limit) for one, number in views]
    arrays = PackedArrays()
    index = _concatenate(listed)
    arrays.add_integers("prior_low", index & 0xFFFF)
    arrays.add_integers("prior_high", index >> 16)
    for name in ("positive", "negative", "regression", "score", "iou", "assigned"):
        values = _concatenate([getattr(one, name).numpy()[i] for (one, _), i in zip(views, listed, strict=True)])
        if name == "assigned":
            arrays.add_integers(name, values)
        else:
            arrays.add_numbers(name, values)
    counts = [int(one.assigned.sum()) for one, _ in views]
    return {"lengths": [len(index) for index in listed], "positives": counts, **arrays.to_dict()}


def _concatenate(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _rank_priors(view: ObjectView, inside: Tensor, limit: int) -> np.ndarray:
    """Indices of at most ``limit`` priors, by positive weight, then by score x IoU."""
    positive = view.positive.numpy()
    quality = (view.score * view.iou).numpy()
    candidates = (view.assigned | inside | (view.iou > 0.1) | (view.positive > 0)).numpy().nonzero()[0]
    order = np.lexsort((-quality[candidates], -positive[candidates]))
    return candidates[order[:limit]]
