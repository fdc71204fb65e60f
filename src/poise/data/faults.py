"""Every kind of fault that a data set can have, and the one policy for each.

A ``dropped`` kind makes :func:`poise.data.open_data` refuse the data set (``on_bad_data="error"``) or leave out
exactly the faulty record (``on_bad_data="skip"``). Every other kind is a *note*: nothing is left out or changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class FaultKind:
    """A stable name, what it means, whether the record is dropped, and what then happens."""

    name: str
    meaning: str
    policy: str
    dropped: bool = True

    @property
    def severity(self) -> str:
        """``"would be dropped"`` or ``"note"``."""
        return "would be dropped" if self.dropped else "note"


@dataclass(frozen=True)
class Fault:
    """One fault found in a data set."""

    kind: str  # a name of ``FAULT_KINDS``
    where: str  # file and record, relative to the root of the data set
    detail: str = ""  # what was found there

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}" + (f" ({self.detail})" if self.detail else "")


_IMAGE = "the image is left out with its objects"
_OBJECT = "the object is left out"
_KEPT = "kept as it is"

_KINDS = (
    FaultKind("annotations-unreadable", "an annotation file of a split cannot be read at all", "the split is refused"),
    FaultKind("image-malformed", "an image record without usable id or file name", "the record is left out"),
    FaultKind("image-missing", "the image file does not exist", _IMAGE),
    FaultKind("image-outside-root", "the path leads out of the data folder ('..', or a link: --follow-links)", _IMAGE),
    FaultKind("image-empty", "the image file has 0 bytes", _IMAGE),
    FaultKind("image-unsupported", "the file is not JPEG, PNG, BMP, WEBP or TIFF, or of an unknown depth", _IMAGE),
    FaultKind("image-unreadable", "the image file cannot be decoded", _IMAGE),
    FaultKind("image-truncated", "the image file ends too early", _IMAGE),
    FaultKind("image-too-large", "more pixels than the decompression-bomb limit", _IMAGE),
    FaultKind("image-size-differs", "the size is not the annotated one, rotated by EXIF or not", _IMAGE),
    FaultKind(
        "image-id-duplicate",
        "several image records share one id",
        "equal records: the later ones are left out; different files: all of them, with the objects of that id",
    ),
    FaultKind("label-unreadable", "the annotation file of one image cannot be parsed", _IMAGE),
    FaultKind("label-missing", "an image listed in a VOC split has no annotation file", _IMAGE),
    FaultKind("label-elsewhere", "the label of a YOLO image lies where no label is looked for", _IMAGE),
    FaultKind("label-without-image", "an annotation file without its image", "the annotation file is left out"),
    FaultKind(
        "label-malformed", "a YOLO line with a wrong number of columns or with something else than numbers", _OBJECT
    ),
    FaultKind("label-not-normalized", "a YOLO line with coordinates outside [0, 1]", _OBJECT),
    FaultKind("object-malformed", "an object without usable box, class or image", _OBJECT),
    FaultKind("annotation-image-unknown", "an annotation of an image id that is not listed", _OBJECT),
    FaultKind("category-malformed", "a category without usable id or name", "the record is left out"),
    FaultKind("category-id-duplicate", "several categories share one id", "the first one names the id"),
    FaultKind("category-unknown", "an object of a category that is not listed", _OBJECT),
    FaultKind(
        "boxes-other-unit",
        "all boxes of a split seem to be in another unit or order of numbers",
        "all objects of the split are left out",
    ),
    FaultKind(
        "split-classes-differ",
        "a split whose classes are not those of the training split",
        "training and validating on both is refused",
    ),
    FaultKind("box-nonfinite", "a box with NaN or infinite coordinates", _OBJECT),
    FaultKind("box-degenerate", "a box whose width or height is zero or negative", _OBJECT),
    FaultKind("box-outside", "a box that does not overlap its image", _OBJECT),
    FaultKind("box-partly-outside", "a box that reaches more than 1 pixel out of its image", _KEPT, False),
    FaultKind(
        "box-tiny", "a box narrower or lower than 1 pixel", _KEPT + "; the published recipes leave it out", False
    ),
    FaultKind("box-duplicated", "the same box of the same class twice in one image", _KEPT, False),
    FaultKind("annotation-id-zero", "annotation id 0, which COCO tools take for 'no match'", _KEPT, False),
    FaultKind("annotation-id-not-integer", "annotations whose id is missing or no integer", "numbered anew", False),
    FaultKind("annotation-id-duplicate", "several annotations share one id", _KEPT, False),
    FaultKind("areas-not-positive", "a COCO file in which every area is 0 or less", "taken from the boxes", False),
    FaultKind("category-name-duplicate", "several categories share one name", _KEPT + ", as separate classes", False),
    FaultKind("class-without-objects", "a class of which no split has an object", _KEPT, False),
    FaultKind("image-file-duplicate", "several image records of one file", _KEPT, False),
    FaultKind("image-without-label", "a YOLO image without label file", "kept as background", False),
    FaultKind("label-duplicate", "an image with two YOLO label files", "the first one named is read", False),
    FaultKind("label-unclear", "YOLO lines that could be polygons or keypoints", "read as polygons", False),
    FaultKind("image-size-missing", "no annotated width and height", "read from the image file", False),
    FaultKind("image-dark", "an image of 16 bits that uses only the lower ones", "read as nearly black", False),
    FaultKind("image-exif-rotated", "the EXIF orientation turns or mirrors the image", "see 'EXIF orientation'", False),
    FaultKind("image-unlisted", "an image file in the folder of a split that no split lists", "not used", False),
    FaultKind("split-overlap-name", "the same file or id in two splits", _KEPT + "; metrics are too good", False),
    FaultKind("split-overlap-content", "the same picture in two splits", _KEPT + "; metrics are too good", False),
)

FAULT_KINDS: dict[str, FaultKind] = {kind.name: kind for kind in _KINDS}


@dataclass
class FaultLog:
    """Collects faults while a data set is read."""

    faults: list[Fault] = field(default_factory=list)

    def add(self, kind: str, where: str, detail: str = "") -> None:
        """Note one fault; ``kind`` is a name of :data:`FAULT_KINDS`."""
        if kind not in FAULT_KINDS:
            raise KeyError(f"{kind} is not a kind of fault")
        self.faults.append(Fault(kind, where, detail))

    def __iter__(self) -> Iterator[Fault]:
        return iter(self.faults)

    @property
    def dropped(self) -> list[Fault]:
        """The faults whose record is left out."""
        return [fault for fault in self.faults if FAULT_KINDS[fault.kind].dropped]

    @property
    def notes(self) -> list[Fault]:
        """The faults that change nothing."""
        return [fault for fault in self.faults if not FAULT_KINDS[fault.kind].dropped]

    @property
    def counts(self) -> Counter[str]:
        """How many faults of each kind."""
        return Counter(fault.kind for fault in self.faults)
