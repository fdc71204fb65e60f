"""A data set as tar shards and one packed file of annotations a split: few large files instead of many small ones.

The tars follow the layout of WebDataset (a record's files share a name: ``000004711.jpg``, ``000004711.json``), and
other programs can stream them. poise reads single records by their offset, so order, shuffling and exact resuming are
those of the folder that the shards were made from.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from poise.data.columns import Strings
from poise.data.errors import DataError
from poise.data.files import MEBIBYTE
from poise.data.image_set import ImageRecord, ImageSet
from poise.data.images import image_bytes
from poise.data.members import write_index
from poise.data.packed import SUFFIX, write_annotations

Report = Callable[[], object]  # called after each image


@dataclass
class _Shard:
    """A tar being written under a temporary name."""

    file: Path
    names: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    checksums: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.partial = self.file.with_name(f".{self.file.name}.part")
        self.tar = tarfile.TarFile(self.partial, "w", format=tarfile.PAX_FORMAT)

    def add(self, name: str, content: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), 0o644
        self.tar.addfile(info, io.BytesIO(content))
        self.names.append(name)
        self.offsets.append(self.tar.offset - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
        self.sizes.append(len(content))
        self.checksums.append(zlib.crc32(content))

    def close(self) -> None:
        """Under its own name, once all of it is on the disk."""
        self.tar.close()
        with self.partial.open("rb") as file:
            os.fsync(file.fileno())
        write_index(self.file, self.names, self.offsets, self.sizes, checksums=self.checksums)
        self.partial.replace(self.file)


def write_shards(image_set: ImageSet, out: Path, megabytes: int = 512, report: Report | None = None) -> list[Path]:
    """Write the images of a split into tars of about ``megabytes``, with their annotations; images keep their bytes.

    Raises:
        DataError: the folder holds this split already, or an image cannot be read.
        ValueError: tars of less than one megabyte.
    """
    if megabytes < 1:
        raise ValueError(f"shards of {megabytes} MB: at least 1")
    out.mkdir(parents=True, exist_ok=True)
    annotations = out / f"{image_set.name}{SUFFIX}"
    if annotations.exists() or any(out.glob(f"{image_set.name}-*.tar")):
        raise DataError(f"{out}: holds shards of '{image_set.name}' already; give another folder or delete them")
    files, shards = [], [_shard(out, image_set.name, 0)]
    for record in image_set:
        content = image_bytes(record.path)
        if shards[-1].sizes and shards[-1].tar.offset + len(content) > megabytes * MEBIBYTE:
            shards[-1].close()
            shards.append(_shard(out, image_set.name, len(shards)))
        name = f"{record.index:09d}"
        shards[-1].add(name + record.path.suffix.lower(), content)
        shards[-1].add(name + ".json", _annotation(record, image_set))
        files.append(f"{shards[-1].file.name}/{name}{record.path.suffix.lower()}")
        if report is not None:
            report()
    shards[-1].close()
    paths = [shard.file for shard in shards]
    packed = replace(image_set, images=replace(image_set.images, files=Strings.of(files)))
    partial = annotations.with_name(f".{annotations.name}.part")
    write_annotations(packed, partial, {path.name: path.stat().st_size for path in paths})
    partial.replace(annotations)  # last: a folder without it was never finished
    return paths


def _shard(out: Path, split: str, number: int) -> _Shard:
    return _Shard(out / f"{split}-{number:06d}.tar")


def _annotation(record: ImageRecord, image_set: ImageSet) -> bytes:
    """What WebDataset's readers find with the image: COCO's names, boxes as x, y, width, height."""
    boxes = np.concatenate((record.boxes[:, :2], record.boxes[:, 2:] - record.boxes[:, :2]), 1)
    content = {
        "image_id": record.id,
        "width": record.width,
        "height": record.height,
        "bbox": [[round(float(value), 3) for value in box] for box in boxes],
        "category_id": [image_set.category_ids[label] for label in record.labels],
        "iscrowd": record.crowd.astype(int).tolist(),
        "ignore": record.ignore.astype(int).tolist(),
    }
    return json.dumps(content).encode()
