"""Proposals from a file: regions of each image for detectors that propose none (Fast R-CNN).

The file is a list in the form of COCO results, ``[{"image_id": 7, "bbox": [x, y, width, height], "score": 0.9}, …]``,
in pixels of the original images; further keys, such as ``category_id``, are not looked at.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from poise.data.coco_json import LARGEST_FILE
from poise.data.columns import BoxColumn
from poise.data.errors import DataError
from poise.data.files import size_of_file
from poise.data.image_set import ImageSet
from poise.data.values import integral
from poise.suggestions import plural

SHOWN = 3  # examples that a message names
SIDES = "x, y, width, height"


def with_proposals(
    image_set: ImageSet, path: Path | str, limit: int = 2000, on_bad_data: Literal["error", "skip"] = "error"
) -> tuple[ImageSet, list[str]]:
    """The image set with the best ``limit`` proposals of each image, and what the user should know about them.

    Images of which the file knows nothing have no proposals; proposals of other images are left out. Both are reported.

    Args:
        on_bad_data: proposals that are malformed, not finite, without area or outside their image: an error that
            names the first of them, or they are left out and counted.

    Raises:
        DataError: such proposals, a file that cannot be read, or none of its images is in the set.
    """
    path = Path(path)
    if limit < 1:
        raise ValueError(f"a limit of {limit} proposals an image: it must be at least 1")
    ids = image_set.image_ids()
    rows = _parse(path, ProposalRows({image_id: position for position, image_id in reversed(list(enumerate(ids)))}))
    remarks = _keep_usable(path, rows, image_set, on_bad_data)
    if not rows.owners:
        raise DataError(
            f"{path}: no proposal belongs to an image of '{image_set.name}' (its ids are like {ids[:1]}, those of the "
            f"file like {rows.unknown_id!r}); poise eval MODEL --data D --split S --save-proposals F makes one for it"
        )
    order = np.lexsort((-np.array(rows.scores), np.array(rows.owners)))
    owners, boxes = np.array(rows.owners)[order], np.array(rows.boxes).reshape(-1, 4)[order]
    counts = np.bincount(owners, minlength=len(ids))
    rank = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    offsets = np.concatenate(([0], np.cumsum(np.minimum(counts, limit))))
    columns = BoxColumn(boxes[rank < limit].astype(np.float32), offsets.astype(np.int64))
    if not counts.all():
        first = ", ".join(str(ids[i]) for i in np.flatnonzero(counts == 0)[:SHOWN])
        remarks.append(
            f"{path}: {int((counts == 0).sum())} of {len(ids)} images have no proposals (the first: {first})"
        )
    return replace(image_set, proposals=columns), remarks


@dataclass
class ProposalRows:
    """The proposals of known images, filled while the parser runs, so that a large file never stands in memory."""

    positions: Mapping[int | str, int]  # of each image id
    owners: array[int] = field(default_factory=lambda: array("q"))
    boxes: array[float] = field(default_factory=lambda: array("d"))  # x1, y1, x2, y2
    scores: array[float] = field(default_factory=lambda: array("d"))
    num_unknown: int = 0  # proposals of images that are not in the set
    unknown_id: object = None  # id of the first
    faults: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def take(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """Object hook of the parser: take out proposals and masks, return everything else."""
        if "image_id" not in record or "bbox" not in record:
            return None if "counts" in record and "size" in record else record
        image_id = integral(record["image_id"])
        position = self.positions.get(image_id) if isinstance(image_id, (int, str)) else None
        if position is None:
            self.num_unknown += 1
            self.unknown_id = image_id if self.unknown_id is None else self.unknown_id
            return None
        try:
            x, y, width, height = map(float, record["bbox"])
            score = float(record["score"])
        except (KeyError, TypeError, ValueError, OverflowError):
            self.fault(f"without a bbox of {SIDES} or without a score", image_id, record)
            return None
        self.owners.append(position)
        self.boxes.extend((x, y, x + width, y + height))
        self.scores.append(score)
        return None

    def fault(self, kind: str, image_id: object, record: object) -> None:
        """Count a proposal that cannot be used."""
        self.faults[kind] += 1
        if len(self.examples) < SHOWN:
            self.examples.append(f"image {image_id!r}: {str(record)[:120]}")

    def keep(self, usable: np.ndarray) -> None:
        """Only the rows of the mask."""
        self.owners = array("q", np.array(self.owners)[usable].tobytes())
        self.boxes = array("d", np.array(self.boxes).reshape(-1, 4)[usable].tobytes())
        self.scores = array("d", np.array(self.scores)[usable].tobytes())


def _parse(path: Path, rows: ProposalRows) -> ProposalRows:
    try:
        size = size_of_file(path)
        if size > LARGEST_FILE:
            raise DataError(f"{path}: {size} bytes are more than the limit of {LARGEST_FILE}; keep fewer an image")
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_hook=rows.take)
    except OSError as error:
        why = error.strerror or str(error)
        raise DataError(f"{path}: the proposals cannot be read ({why}); check the file and its rights") from error
    except (RecursionError, MemoryError) as error:
        raise DataError(f"{path}: is nested too deeply or does not fit into memory; write it again") from error
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: is not valid JSON ({error}); write it again") from error
    if not isinstance(content, list):
        raise DataError(
            f'{path}: holds no proposals: a list of {{"image_id": …, "bbox": [{SIDES}], "score": …}} is needed'
        )
    for record in content:
        if record is not None:
            rows.fault("without image_id or bbox", None, record)
    return rows


def _keep_usable(path: Path, rows: ProposalRows, image_set: ImageSet, on_bad_data: str) -> list[str]:
    """Leave out what cannot be used, or refuse it; remarks on what was left out."""
    ids, boxes = image_set.image_ids(), np.array(rows.boxes).reshape(-1, 4)
    owners = np.array(rows.owners)
    sizes = np.stack((image_set.images.widths, image_set.images.heights), 1)[owners].astype(np.float64)
    sizes[sizes <= 0] = np.inf  # not stated
    with np.errstate(over="ignore"):  # as they will be used: 1e300 is not finite there
        finite = np.isfinite(boxes.astype(np.float32)).all(1) & np.isfinite(np.array(rows.scores))
    with np.errstate(invalid="ignore"):
        solid = (boxes[:, 2:] > boxes[:, :2]).all(1)
        inside = (boxes[:, 2:] > 0).all(1) & (boxes[:, :2] < sizes).all(1)
    total = len(owners) + sum(rows.faults.values())
    kinds = {"not finite": ~finite, "without area": finite & ~solid, "outside their image": finite & solid & ~inside}
    for kind, wrong in kinds.items():
        rows.faults[kind] += int(wrong.sum())
        for row in np.flatnonzero(wrong)[: SHOWN - len(rows.examples)]:
            rows.examples.append(f"image {ids[owners[row]]!r}: {kind}, corners {boxes[row].tolist()}")
    rows.keep(finite & solid & inside)
    return _remarks(path, rows, total, on_bad_data)


def _remarks(path: Path, rows: ProposalRows, total: int, on_bad_data: str) -> list[str]:
    remarks = []
    faults = {kind: count for kind, count in rows.faults.items() if count}
    if faults:
        kinds = ", ".join(f"{count} {kind}" for kind, count in faults.items())
        count = plural(sum(faults.values()), "proposal")
        text = f"{path}: {count} cannot be used ({kinds}), for example {'; '.join(rows.examples)}"
        if on_bad_data == "error":
            raise DataError(
                f'{text}. Correct the file, or leave them out: --on-bad-data skip, or on_bad_data="skip" in Python'
            )
        remarks.append(f"{text}; they are left out")
    if rows.num_unknown:
        remarks.append(
            f"{path}: {rows.num_unknown} of {total + rows.num_unknown} proposals are of images that are not in this "
            f"split (the first: {rows.unknown_id!r}); they are left out"
        )
    return remarks
