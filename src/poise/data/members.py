"""Files inside tar shards, read by their offset in the tar: nothing is ever unpacked.

A path leads into a shard where one of its folders is a ``.tar`` file: ``train-000003.tar/000004711.jpg``. Beside the
tar lies an index of names, offsets, sizes and checksums (``train-000003.tar.index.npz``); without one the tar's own
headers are read once.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from poise.data.columns import Strings
from poise.data.errors import BadImage, DataError

INDEX = ".index.npz"
COPY_AGAIN = "copy the shard again, or write it anew with poise shard"
_BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Where each file of a tar lies."""

    names: dict[str, int]  # to the row of the columns
    offsets: np.ndarray  # (n,) int64, first byte
    sizes: np.ndarray  # (n,) int64, bytes
    checksums: np.ndarray | None  # (n,) uint32, CRC-32; None where only the tar's headers are known


def inside_tar(path: Path) -> tuple[Path, str] | None:
    """The tar that a path leads into and the name inside; None for an ordinary path."""
    text = path.as_posix()
    if ".tar/" not in text:
        return None
    tar, name = text.split(".tar/", 1)
    file = Path(tar + ".tar")
    return (file, name) if file.is_file() else None


def read_member(tar: Path, name: str) -> bytes:
    """The bytes of a file of a tar.

    Raises:
        BadImage: the tar lacks it, is too short or holds other bytes than were written; names shard and record.
    """
    where = tar / name
    try:
        index = _index(tar)
    except DataError as error:
        raise BadImage(where, "image-unreadable", str(error), COPY_AGAIN) from error
    if name not in index.names:
        raise BadImage(where, "image-missing", "the shard holds no such record", COPY_AGAIN)
    row = index.names[name]
    offset, size = int(index.offsets[row]), int(index.sizes[row])
    try:
        with tar.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise BadImage(where, "image-unreadable", f"cannot be read ({error.strerror or error})", COPY_AGAIN) from error
    if len(content) < size:
        raise BadImage(where, "image-truncated", f"the shard ends {size - len(content)} bytes early", COPY_AGAIN)
    if index.checksums is not None and zlib.crc32(content) != int(index.checksums[row]):
        raise BadImage(where, "image-unreadable", "its bytes in the shard are not those that were written", COPY_AGAIN)
    return content


def write_index(tar: Path, names: list[str], offsets: list[int], sizes: list[int], *, checksums: list[int]) -> None:
    """Write the index of a tar into its folder."""
    strings = Strings.of(names)
    with Path(f"{tar}{INDEX}").open("wb") as file:
        np.savez(
            file,
            name_buffer=strings.buffer,
            name_offsets=strings.offsets,
            offsets=np.array(offsets, np.int64),
            sizes=np.array(sizes, np.int64),
            checksums=np.array(checksums, np.uint32),
        )


@lru_cache(maxsize=256)
def _index(tar: Path) -> ShardIndex:
    """Raises: DataError: neither an index nor readable headers."""
    index_file = Path(f"{tar}{INDEX}")
    if not index_file.is_file():
        return _from_headers(tar)
    try:
        with np.load(index_file, allow_pickle=False) as arrays:
            names = Strings(arrays["name_buffer"], arrays["name_offsets"]).tolist()
            columns = arrays["offsets"], arrays["sizes"], arrays["checksums"]
    except _BROKEN as error:
        raise DataError(f"{index_file}: is damaged ({error}); delete it, or write the shard anew") from error
    if any(len(column) != len(names) for column in columns) or (columns[0] < 0).any() or (columns[1] < 0).any():
        raise DataError(f"{index_file}: is damaged (its columns do not fit); delete it, or write the shard anew")
    return ShardIndex({name: row for row, name in enumerate(names)}, *columns)


def _from_headers(tar: Path) -> ShardIndex:
    try:
        with tarfile.open(tar, "r:") as archive:
            files = [member for member in archive if member.isreg()]
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{tar}: is no readable tar ({error}); {COPY_AGAIN}") from error
    offsets, sizes = ([getattr(member, what) for member in files] for what in ("offset_data", "size"))
    names = {member.name: row for row, member in enumerate(files)}
    return ShardIndex(names, np.array(offsets, np.int64), np.array(sizes, np.int64), None)
