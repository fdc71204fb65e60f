"""Items of a data set as training and evaluation see them, each a pure function of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from poise.data.augment import Pipeline, Scene, make_scene
from poise.data.augment.chance import seeded, whole_number
from poise.data.augment.scene import size_of, with_proposals
from poise.data.errors import BadImage, DataError
from poise.data.images import read_image

MOST_SUBSTITUTES = 20  # so many unreadable images in a row end the run even where they may be skipped


class Record(Protocol):
    """What is needed of an image's record."""

    @property
    def path(self) -> Path: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def boxes(self) -> np.ndarray: ...
    @property
    def labels(self) -> np.ndarray: ...
    @property
    def crowd(self) -> np.ndarray: ...
    @property
    def ignore(self) -> np.ndarray: ...


class Records(Protocol):
    """What is needed of an image set."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Record: ...


@dataclass(frozen=True)
class Item:
    """An image ready to be put into a batch."""

    scene: Scene
    index: int  # position of the image in its set (of the substitute, where one was used)
    original_size: tuple[int, int]  # height and width as read
    notes: tuple[str, ...] = ()  # what the user must be told


@dataclass(frozen=True)
class Failure:
    """An image that cannot be used; travels from the worker to the training process in the place of an item."""

    error: Exception


@dataclass(frozen=True)
class Step:
    """The passage of one image through a pipeline, with what came up on the way."""

    image_set: Records
    skip_bad: bool
    num_classes: int | None = None  # where the set says so
    notes: list[str] = field(default_factory=list)

    def read(self, index: int) -> tuple[Scene, int]:
        """The scene at ``index``, or at the next index whose image can be read where bad images may be skipped."""
        errors: list[BadImage] = []
        for offset in range(min(MOST_SUBSTITUTES, len(self.image_set))):
            position = (index + offset) % len(self.image_set)
            try:
                record = self.image_set[position]
                check_objects(record, self.num_classes)
                scene = read_scene(record)
            except BadImage as error:
                if not self.skip_bad:
                    raise
                errors.append(error)
                continue
            self.notes.extend(f"{error} (skipped: image {position} takes its place)" for error in errors)
            return scene, position
        raise errors[0]

    def partner(self) -> Scene:
        """A scene drawn from the whole set."""
        return self.read(whole_number(0, len(self.image_set) - 1))[0]


def stated_size(record: Record) -> tuple[int, int] | None:
    """Width and height that the annotation states; None where its format has none (YOLO)."""
    return (int(record.width), int(record.height)) if record.width and record.height else None


def check_objects(record: Record, num_classes: int | None) -> None:
    """Refuse objects that would spoil a step; the readers of this room hand on none, records from elsewhere may.

    Raises:
        DataError: naming file and object.
    """
    boxes, labels = np.asarray(record.boxes, np.float32).reshape(-1, 4), np.asarray(record.labels)
    for what, wrong in (
        ("a box that is not finite", ~np.isfinite(boxes).all(1)),
        ("a box with x2 <= x1 or y2 <= y1", (boxes[:, 2:] <= boxes[:, :2]).any(1)),
        (f"a label outside [0, {num_classes})", (labels < 0) | (labels >= (num_classes or np.inf))),
    ):
        if wrong.any():
            j = int(wrong.argmax())
            where = f"{record.path}: object {j} has {what}"
            raise DataError(f"{where}: box {boxes[j].tolist()}, label {int(labels[j])}; correct or remove it")


def read_scene(record: Record) -> Scene:
    """Image, objects and, where the set has them, proposals of a record.

    Raises:
        BadImage: the file cannot be read.
    """
    image = read_image(record.path, stated_size(record))
    flags = (torch.from_numpy(np.array(values, dtype=bool)) for values in (record.crowd, record.ignore))
    boxes = torch.from_numpy(np.array(record.boxes, dtype=np.float32))
    scene = make_scene(image, boxes, torch.from_numpy(np.array(record.labels, dtype=np.int64)), *flags)
    proposals = getattr(record, "proposals", None)
    return scene if proposals is None else with_proposals(scene, torch.from_numpy(np.array(proposals, np.float32)))


class DetectionDataset(Dataset["Item | Failure"]):
    """Augmented images of an image set.

    Items are asked for with (epoch, index) and depend on nothing but these and ``seed``: neither on the order of
    asking nor on the process that answers nor on what was drawn elsewhere. A plain index means epoch 0.

    Args:
        image_set: records with ``path``, ``boxes``, ``labels``, ``crowd``, ``ignore``.
        pipeline: what happens to an image.
        seed: of all random choices.
        on_bad_image: an unreadable image ends the run ("error"), or the next readable one of the set takes its place
            ("skip"), which is said in ``Item.notes``.
        later: (epoch, pipeline): another pipeline from this epoch on.
    """

    def __init__(
        self,
        image_set: Records,
        pipeline: Pipeline,
        seed: int = 0,
        on_bad_image: Literal["error", "skip"] = "error",
        later: tuple[int, Pipeline] | None = None,
    ) -> None:
        if on_bad_image not in ("error", "skip"):
            raise ValueError(f"on_bad_image='{on_bad_image}' must be 'error' or 'skip'")
        self.image_set, self.pipeline, self.seed, self.later = image_set, pipeline, seed, later
        self.skip_bad = on_bad_image == "skip"
        self.num_classes = len(getattr(image_set, "class_names", ())) or None

    def __len__(self) -> int:
        return len(self.image_set)

    def __getitem__(self, key: tuple[int, int] | int) -> Item | Failure:
        epoch, index = (0, key) if isinstance(key, int) else key
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        step = Step(self.image_set, self.skip_bad, self.num_classes)
        try:
            with seeded(self.seed, epoch, index):
                scene, position = step.read(index)
                return Item(self._pipeline_of(epoch)(scene, step.partner), position, size_of(scene), tuple(step.notes))
        except DataError as error:
            return Failure(error)

    def _pipeline_of(self, epoch: int) -> Pipeline:
        return self.later[1] if self.later and epoch >= self.later[0] else self.pipeline


def sizes_of(items: Sequence[Item]) -> list[tuple[int, int]]:
    """Height and width of each image as it goes into the network."""
    return [size_of(item.scene) for item in items]
