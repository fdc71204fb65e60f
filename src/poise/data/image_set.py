"""The images of one split with their objects, whatever the format they were read from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from poise.data.columns import BoxColumn, Ragged, Strings
from poise.data.faults import Fault
from poise.data.images import MAX_PIXELS, read_image
from poise.storage.coco import CocoAnnotation, CocoCategory, CocoImage, CocoTruth
from poise.suggestions import plural

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Category:
    """A class of objects as the data set names it."""

    id: int
    name: str
    frequency: str | None = None  # LVIS: "r", "c" or "f"
    supercategory: str | None = None


@dataclass(frozen=True)
class Source:
    """One of the data sets that an image set was joined from."""

    name: str  # image ids of the joined set begin with it
    root: Path
    split: str
    class_names: tuple[str, ...]  # classes that it annotates, as the joined set spells them
    integer_ids: bool  # its image ids are numbers


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image and its n objects. Boxes are as annotated: they may reach out of the image."""

    index: int  # position in the image set
    id: int | str  # as in the data set; the file's name without suffix for YOLO and VOC
    path: Path
    width: int  # pixels, of the form of the image that the annotations are drawn on
    height: int
    boxes: np.ndarray  # (n,4) float32, xyxy pixels
    labels: np.ndarray  # (n,) int64 in [0,C): position in ``ImageSet.categories``
    crowd: np.ndarray  # (n,) bool, COCO's iscrowd
    ignore: np.ndarray  # (n,) bool, VOC's difficult, COCO's ignore
    areas: np.ndarray  # (n,) float32 pixels; of the mask where the data set states it
    annotation_ids: np.ndarray  # (n,) int64
    negative_category_ids: tuple[int, ...] = ()  # LVIS: classes known to be absent
    not_exhaustive_category_ids: tuple[int, ...] = ()  # LVIS: classes of which not every object is annotated
    proposals: np.ndarray | None = None  # (k,4) float32, xyxy pixels, best first, where a file of them was read


@dataclass(frozen=True, eq=False)
class ImageColumns:
    """One row an image."""

    ids: np.ndarray | Strings  # (n,) int64, or strings
    files: Strings  # (n,) relative to the root, "/" between folders
    widths: np.ndarray  # (n,) int32
    heights: np.ndarray  # (n,) int32
    negative: Ragged | None = None
    not_exhaustive: Ragged | None = None
    source: np.ndarray | None = None  # (n,) int64: position in ``ImageSet.sources``

    def take(self, indices: np.ndarray) -> ImageColumns:
        """Only the rows ``indices``."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return ImageColumns(**{name: _take(column, indices) for name, column in parts.items()})


@dataclass(frozen=True, eq=False)
class ObjectColumns:
    """One row an object, sorted by image."""

    boxes: np.ndarray  # (m,4) float64 xyxy pixels
    labels: np.ndarray  # (m,) int64
    crowd: np.ndarray  # (m,) bool
    ignore: np.ndarray  # (m,) bool
    areas: np.ndarray  # (m,) float64
    annotation_ids: np.ndarray  # (m,) int64
    every_class: np.ndarray | None = None  # (m,) bool: crowd regions of every class, not only of their label

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> ObjectColumns:
        """Only the rows ``rows`` (positions or a mask)."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        taken: dict[str, Any] = {name: None if one is None else one[rows] for name, one in columns.items()}
        return ObjectColumns(**taken)


def _take(column: Any, indices: np.ndarray) -> Any:
    if column is None:
        return None
    return column[indices] if isinstance(column, np.ndarray) else column.take(indices)


@dataclass(frozen=True, eq=False)
class ImageSet(Sequence[ImageRecord]):
    """A split of a data set: ``len``, ``[index]``, iteration give :class:`ImageRecord`.

    Everything is kept in a few numpy columns, so that a set of 118,000 images is pickled and shared with worker
    processes at the price of its numbers.
    """

    name: str  # of the split: "train", "val", "test" or as found
    root: Path  # absolute
    format: str  # "coco", "lvis", "yolo" or "voc"
    categories: tuple[Category, ...]  # by id, ascending: a label is a position in it
    images: ImageColumns
    objects: ObjectColumns
    offsets: np.ndarray  # (n+1,) int64: objects of image i are rows offsets[i]:offsets[i+1]
    skipped: tuple[Fault, ...] = ()  # what was left out
    notes: tuple[Fault, ...] = ()  # what is odd, but kept
    read_as: tuple[str, ...] = ()  # how the files were read, for people
    proposals: BoxColumn | None = None  # of each image; see ``poise.data.with_proposals``
    sources: tuple[Source, ...] = ()  # the data sets, where several were joined

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels, as the data set spells them."""
        return tuple(category.name for category in self.categories)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The data set's ids in the order of the labels."""
        return tuple(category.id for category in self.categories)

    @property
    def num_objects(self) -> int:
        return len(self.objects)

    @property
    def objects_per_image(self) -> np.ndarray:
        """(n,) int64, crowd and ignored ones included."""
        return np.diff(self.offsets)

    @property
    def image_of_object(self) -> np.ndarray:
        """(m,) int64: position of the image of each object."""
        return np.repeat(np.arange(len(self)), self.objects_per_image)

    def __repr__(self) -> str:
        counted = {"image": len(self), "object": self.num_objects, "class": len(self.categories)}
        counts = ", ".join(plural(number, noun) for noun, number in counted.items())
        return f"<ImageSet '{self.name}' of {self.root}, {self.format}: {counts}>"

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[ImageRecord]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> ImageRecord:  # type: ignore[override]  # a slice is ``subset``
        index = range(len(self))[index]
        images, part = self.images, slice(self.offsets[index], self.offsets[index + 1])
        objects = self.objects
        return ImageRecord(
            index=index,
            id=self.image_id(index),
            path=self.path(index),
            width=int(images.widths[index]),
            height=int(images.heights[index]),
            boxes=objects.boxes[part].astype(np.float32),
            labels=objects.labels[part],
            crowd=objects.crowd[part],
            ignore=objects.ignore[part],
            areas=objects.areas[part].astype(np.float32),
            annotation_ids=objects.annotation_ids[part],
            negative_category_ids=images.negative[index] if images.negative else (),
            not_exhaustive_category_ids=images.not_exhaustive[index] if images.not_exhaustive else (),
            proposals=None if self.proposals is None else self.proposals[index],
        )

    def image_id(self, index: int) -> int | str:
        """The data set's own id of an image."""
        value = self.images.ids[index]
        return value if isinstance(value, str) else int(value)

    def source_id(self, index: int) -> tuple[str, int | str] | None:
        """Name of the data set and the image's id there, where several were joined."""
        if self.images.source is None or not self.sources:
            return None
        source = self.sources[self.images.source[index]]
        own = str(self.image_id(index)).removeprefix(f"{source.name}/")
        return source.name, int(own) if source.integer_ids else own

    def path(self, index: int) -> Path:
        """The image file."""
        return self.root / self.images.files[index]

    def read(self, index: int, *, max_pixels: int | None = MAX_PIXELS) -> Tensor:
        """The image as the annotations were drawn on it, (3,H,W) uint8 RGB; raises :class:`BadImage`."""
        size = int(self.images.widths[index]), int(self.images.heights[index])
        return read_image(self.path(index), size, max_pixels=max_pixels)

    def subset(self, indices: Iterable[int]) -> ImageSet:
        """Only these images, in this order."""
        chosen = np.fromiter(indices, np.int64)
        counts = self.objects_per_image[chosen]
        offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        rows = np.repeat(self.offsets[chosen] - offsets[:-1], counts) + np.arange(offsets[-1])
        columns = {"images": self.images, "proposals": self.proposals}
        taken = {name: _take(column, chosen) for name, column in columns.items() if column is not None}
        return replace(self, objects=self.objects.take(rows), offsets=offsets, **taken)

    def with_objects(self, keep: np.ndarray) -> ImageSet:
        """All images with only the objects of the mask ``keep`` (m,)."""
        counts = np.bincount(self.image_of_object[keep], minlength=len(self))
        offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        return replace(self, objects=self.objects.take(keep), offsets=offsets)

    def filtered(self, min_size: int = 32, drop_empty: bool = True) -> ImageSet:
        """The filter of the published recipes; for training only, never for evaluation.

        Leaves out objects to ignore, without overlap with the image, of no area, or narrower or lower than 1 pixel
        (crowd regions that pass stay, as crowd); then images whose shorter side is below ``min_size`` and, with
        ``drop_empty``, those without an object that is not crowd.
        """
        kept = self.with_objects(self._usable())
        large = np.minimum(kept.images.widths, kept.images.heights) >= min_size
        found = np.bincount(kept.image_of_object[~kept.objects.crowd], minlength=len(kept)) > 0
        return kept.subset(np.flatnonzero(large & found if drop_empty else large))

    def _usable(self) -> np.ndarray:
        x1, y1, x2, y2 = self.objects.boxes.T
        image = self.image_of_object
        across = np.minimum(x2, self.images.widths[image]) - np.maximum(x1, 0)
        down = np.minimum(y2, self.images.heights[image]) - np.maximum(y1, 0)
        sized = (self.objects.areas > 0) & (x2 - x1 >= 1) & (y2 - y1 >= 1)
        usable: np.ndarray = ~self.objects.ignore & (across > 0) & (down > 0) & sized
        return usable

    def image_ids(self) -> list[int | str]:
        """The data set's own ids of all images."""
        return list(self.images.ids.tolist())

    def to_coco(self, fresh_annotation_ids: bool = False) -> CocoTruth:
        """The truth as a COCO dictionary with the original category, image and annotation ids.

        Image ids are strings for YOLO and VOC (``ImageRecord.id``). Images of joined data sets also have ``source`` and
        ``source_id``, the name of their data set and their id there.

        Args:
            fresh_annotation_ids: number annotations 1..m, as COCO tools need where ids are 0 or repeated.
        """
        ids = self.image_ids()
        return {
            "images": [self._coco_image(i, image_id) for i, image_id in enumerate(ids)],
            "annotations": self._coco_annotations(ids, fresh_annotation_ids),
            "categories": [_coco_category(category) for category in self.categories],
        }

    def _coco_image(self, index: int, image_id: int | str) -> CocoImage:
        images = self.images
        image: CocoImage = {"id": image_id, "file_name": images.files[index]}
        image["width"], image["height"] = int(images.widths[index]), int(images.heights[index])
        if (source := self.source_id(index)) is not None:
            image["source"], image["source_id"] = source
        if images.negative is not None:
            image["neg_category_ids"] = list(images.negative[index])
        if images.not_exhaustive is not None:
            image["not_exhaustive_category_ids"] = list(images.not_exhaustive[index])
        return image

    def _coco_annotations(self, ids: list[int | str], fresh: bool) -> list[CocoAnnotation]:
        objects, owner_of = self.objects, self.image_of_object
        if objects.every_class is not None:  # one annotation of each class
            every = objects.every_class
            rows = np.repeat(np.arange(len(objects)), np.where(every, len(self.categories), 1))
            first = np.repeat(np.cumsum(np.bincount(rows)) - np.bincount(rows), np.bincount(rows))
            labels = np.where(every[rows], np.arange(len(rows)) - first, objects.labels[rows])
            objects, owner_of, fresh = replace(objects.take(rows), labels=labels), owner_of[rows], True
        own = np.arange(1, len(objects) + 1) if fresh else objects.annotation_ids
        corners = objects.boxes
        boxes = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), 1).round(6).tolist()
        categories = np.array(self.category_ids, np.int64)[objects.labels].tolist()
        owners = owner_of.tolist()
        columns = (own.tolist(), owners, categories, boxes, objects.areas.tolist(), objects.crowd, objects.ignore)
        found: list[CocoAnnotation] = []
        for i, owner, category, box, area, crowd, ignore in zip(*columns, strict=True):
            found.append({"id": i, "image_id": ids[owner], "category_id": category, "bbox": box, "area": area})
            found[-1]["iscrowd"] = int(crowd)
            if ignore:
                found[-1]["ignore"] = 1
        return found


def _coco_category(category: Category) -> CocoCategory:
    return cast("CocoCategory", {name: value for name, value in vars(category).items() if value is not None})


def different_classes(first: ImageSet, second: ImageSet) -> str:
    """What differs between the classes of two splits; empty where names and ids are the same."""
    if first.class_names == second.class_names and first.category_ids == second.category_ids:
        return ""
    missing = sorted(set(first.class_names) ^ set(second.class_names))
    what = f": {', '.join(missing[:10])}" if missing else " (other ids or another order)"
    return f"splits '{first.name}' and '{second.name}' have different classes{what}"
