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

MAX_SUBSTITUTES = 20  # unreadable images in a row that end the run even where they may be skipped


class ImageRecordLike(Protocol):
    """Fields of an image record that loading needs."""

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


class ImageSetLike(Protocol):
    """Methods of an image set that loading needs."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> ImageRecordLike: ...


@dataclass(frozen=True)
class Item:
    """An image ready to be put into a batch."""

    scene: Scene
    index: int  # position of the image in its set (of the substitute, where one was used)
    original_size: tuple[int, int]  # height and width as read
    notes: tuple[str, ...] = ()  # warnings for the user


@dataclass(frozen=True)
class Failure:
    """An image that cannot be used; it is sent from the worker to the training process instead of an item."""

    error: Exception


@dataclass(frozen=True)
class SceneReader:
    """Reads the scenes of one item, and collects warnings."""

    image_set: ImageSetLike
    skip_bad: bool
    num_classes: int | None = None  # None: unknown
    notes: list[str] = field(default_factory=list)

    def read(self, index: int) -> tuple[Scene, int]:
        """The scene at ``index``, or at the next index whose image can be read where bad images may be skipped."""
        errors: list[BadImage] = []
        for offset in range(min(MAX_SUBSTITUTES, len(self.image_set))):
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


def stated_size(record: ImageRecordLike) -> tuple[int, int] | None:
    """Width and height that the annotation states; None where its format has none (YOLO)."""
    return (int(record.width), int(record.height)) if record.width and record.height else None


def check_objects(record: ImageRecordLike, num_classes: int | None) -> None:
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


def read_scene(record: ImageRecordLike) -> Scene:
    """Image, objects and, where the set has them, proposals of a record.

    Raises:
        BadImage: the file cannot be read.
    """
    image = read_image(record.path, stated_size(record))
    crowd, ignore = (torch.from_numpy(np.array(values, dtype=bool)) for values in (record.crowd, record.ignore))
    boxes = torch.from_numpy(np.array(record.boxes, dtype=np.float32))
    labels = torch.from_numpy(np.array(record.labels, dtype=np.int64))
    scene = make_scene(image, boxes, labels, crowd, ignore=ignore)
    proposals = getattr(record, "proposals", None)
    return scene if proposals is None else with_proposals(scene, torch.from_numpy(np.array(proposals, np.float32)))


class DetectionDataset(Dataset["Item | Failure"]):
    """Augmented images of an image set.

    An item is a function of (epoch, index) and ``seed`` alone: not of the order of access, the process, or the state of
    any generator. A plain index means epoch 0.

    Args:
        image_set: records with ``path``, ``boxes``, ``labels``, ``crowd``, ``ignore``.
        pipeline: what happens to an image.
        seed: of all random choices.
        on_bad_image: an unreadable image ends the run ("error"), or the next readable one of the set takes its place
            ("skip"), with a warning in ``Item.notes``.
        later: (epoch, pipeline): another pipeline from this epoch on.
    """

    def __init__(
        self,
        image_set: ImageSetLike,
        pipeline: Pipeline,
        seed: int = 0,
        on_bad_image: Literal["error", "skip"] = "error",
        *,
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
        reader = SceneReader(self.image_set, self.skip_bad, self.num_classes)
        try:
            with seeded(self.seed, epoch, index):
                scene, position = reader.read(index)
                return Item(
                    self._pipeline_of(epoch)(scene, reader.partner), position, size_of(scene), tuple(reader.notes)
                )
        except DataError as error:
            return Failure(error)

    def _pipeline_of(self, epoch: int) -> Pipeline:
        return self.later[1] if self.later and epoch >= self.later[0] else self.pipeline


def sizes_of(items: Sequence[Item]) -> list[tuple[int, int]]:
    """Height and width of each image as it goes into the network."""
    return [size_of(item.scene) for item in items]
