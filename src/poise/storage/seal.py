"""The checksum of a file's own content, in the comment of its archive."""

from __future__ import annotations

import hashlib
import os
import struct
from typing import IO

MARK = b"poise-sha256:"
COMMENT = len(MARK) + 64  # bytes of the archive comment: the mark and a hexadecimal SHA-256
ARCHIVE = b"PK\x03\x04"  # how a zip archive begins
TENSORS_HASH = "tensors_sha256"  # text in the header of a safetensors file of poise
_END_RECORD = b"PK\x05\x06"  # "end of central directory" of a zip archive, 22 bytes without its comment
_CHUNK = 1 << 20


def seal(file: IO[bytes]) -> None:
    """Give the archive that ``file`` holds a comment with the checksum of all bytes before it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(size - 2)
    file.write(struct.pack("<H", COMMENT))  # the record's last field is the length of the comment that follows
    digest = _digest(file, size)
    file.seek(size)
    file.write(MARK + digest)


def hash_of_tensors(file: IO[bytes]) -> str:
    """Return the hexadecimal SHA-256 of the tensors of a safetensors file: of all bytes after its header."""
    file.seek(0)
    (header,) = struct.unpack("<Q", file.read(8))
    file.seek(8 + header)
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def flaw(file: IO[bytes]) -> tuple[str, bool]:
    """What is wrong with a sealed file (empty: nothing), and whether it looks like one of ours that was harmed."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return "the file is empty", True
    tail = _read_at(file, max(0, size - COMMENT - 22), COMMENT + 22)
    if tail[:4] != _END_RECORD or tail[22 : 22 + len(MARK)] != MARK:
        if _read_at(file, 0, 4) == ARCHIVE:
            return "it has no poise checksum at its end: it is truncated or from elsewhere", True
        return "it is not a poise file", False
    if _digest(file, size - COMMENT) != tail[22 + len(MARK) :]:
        return "its checksum does not match: the content was altered or damaged", True
    return "", False


def _read_at(file: IO[bytes], position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _digest(file: IO[bytes], size: int) -> bytes:
    """Hexadecimal SHA-256 of the first ``size`` bytes."""
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0:
        chunk = file.read(min(_CHUNK, size))
        if not chunk:
            break
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest().encode()
