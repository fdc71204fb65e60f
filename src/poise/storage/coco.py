"""Types of the COCO format: the truth of a data set as a dictionary, and detections as COCO results."""

from __future__ import annotations

from typing import TypedDict


class CocoImage(TypedDict, total=False):
    """An image; federated data sets (LVIS) and joined ones have further entries."""

    id: int | str
    file_name: str
    width: int
    height: int
    source: str  # name of the joined data set that it is from
    source_id: int | str  # its id there
    neg_category_ids: list[int]
    not_exhaustive_category_ids: list[int]


class CocoAnnotation(TypedDict, total=False):
    """An object: ``bbox`` is x, y, width, height in pixels."""

    id: int
    image_id: int | str
    category_id: int
    bbox: list[float]
    area: float
    iscrowd: int
    ignore: int


class CocoCategory(TypedDict, total=False):
    """A class; ``frequency`` is that of LVIS: ``r``, ``c`` or ``f``."""

    id: int
    name: str
    supercategory: str
    frequency: str


class CocoTruth(TypedDict, total=False):
    """A data set."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory]


class CocoDetection(TypedDict, total=False):
    """A detection; results on joined data sets also have the names of the image's data set and of the class."""

    image_id: int | str
    category_id: int
    bbox: list[float]
    score: float
    source: str
    source_id: int | str
    category: str
