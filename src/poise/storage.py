"""Files of tensors that are either whole or refused.

A file is what ``torch.save`` writes (a zip archive) with a checksum of its own content in the archive's comment: it
stays readable by ``torch.load(path, weights_only=True)`` everywhere, and a truncated or altered one is recognised here
before anything of it is unpickled. Writing goes through a temporary file in the same folder, ``fsync`` and a rename, so
a process that dies while it saves leaves the earlier file untouched.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

_MARK = b"poise-sha256:"
_COMMENT = len(_MARK) + 64  # bytes of the archive comment: the mark and a hexadecimal SHA-256
_END_RECORD = b"PK\x05\x06"  # "end of central directory" of a zip archive, 22 bytes without its comment
_CHUNK = 1 << 20


class DamagedFile(ValueError):
    """A file that cannot be trusted: truncated, altered, or not written by poise."""

    def __init__(self, path: str | os.PathLike[str], why: str, cure: str) -> None:
        super().__init__(f"{os.fspath(path)}: {why}. {cure}")
        self.path = Path(path)
        self.why = why
        self.cure = cure

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self.path), self.why, self.cure)


def save_atomically(path: str | os.PathLike[str], payload: dict[str, Any]) -> None:
    """Write ``payload`` to ``path`` so that at any moment the old or the new file is there, whole.

    Args:
        path: the file; its folder is made where it is missing.
        payload: nested dicts, lists and tuples of tensors, numbers, strings, bytes, booleans and ``None``.

    Raises:
        TypeError: the payload holds something else (it could not be read back safely).
        OSError: the disk is full or the folder cannot be written; the old file is then unharmed.
    """
    path = Path(path)
    _check_plain(payload, path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w+b") as file:
            torch.save(payload, file)
            _seal(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text_atomically(path: str | os.PathLike[str], text: str | Iterable[str]) -> None:
    """Write ``text`` (UTF-8), in one piece or as it comes, with the same guarantee as :func:`save_atomically`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.writelines([text] if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_safely(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file of :func:`save_atomically`; tensors arrive on the CPU.

    Nothing in the file is executed: its checksum is verified first, and it is unpickled with ``weights_only=True``.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: the file is truncated, altered, or was not written by poise.
    """
    with open(path, "rb") as file:
        _verify(file, path)
        file.seek(0)
        try:
            payload = torch.load(file, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DamagedFile(path, f"it cannot be loaded safely ({reason})", _FOREIGN) from error
    if not isinstance(payload, dict):
        raise DamagedFile(path, f"it holds a {type(payload).__name__}, not a dict", _FOREIGN)
    return payload


_FOREIGN = "Use a file written by poise; weights of other projects are read by poise.load_published"
_TORN = "Use an earlier file (a run keeps previous.pt beside last.pt) or copy the file again from its source"


def _seal(file: IO[bytes]) -> None:
    """Give the archive that ``file`` holds a comment with the checksum of all bytes before it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(size - 2)
    file.write(struct.pack("<H", _COMMENT))  # the record's last field is the length of the comment that follows
    digest = _digest(file, size)
    file.seek(size)
    file.write(_MARK + digest)


def _verify(file: IO[bytes], path: str | os.PathLike[str]) -> None:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise DamagedFile(path, "the file is empty", _TORN)
    start = file.read(0) if size < 4 else _read_at(file, 0, 4)
    tail = _read_at(file, max(0, size - _COMMENT - 22), _COMMENT + 22)
    if tail[:4] != _END_RECORD or tail[22 : 22 + len(_MARK)] != _MARK:
        if start == b"PK\x03\x04":
            raise DamagedFile(path, "it has no poise checksum at its end: it is truncated or from elsewhere", _TORN)
        raise DamagedFile(path, "it is not a poise file", _FOREIGN)
    if _digest(file, size - _COMMENT) != tail[22 + len(_MARK) :]:
        raise DamagedFile(path, "its checksum does not match: the content was altered or damaged", _TORN)


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


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable (where the system can: not on Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_plain(value: Any, where: str) -> None:
    """Refuse what ``weights_only`` loading would refuse, before an unreadable file is written."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_plain(key, f"a key of {where}")
            _check_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, (str, bytes)) or value is None or type(value) in (bool, int, float):
        return
    elif isinstance(value, Sequence) and type(value) in (list, tuple, torch.Size):
        for position, item in enumerate(value):
            _check_plain(item, f"{where}[{position}]")
    elif not isinstance(value, (Tensor, torch.dtype)):
        raise TypeError(
            f"{where} is a {type(value).__name__}; only tensors, numbers, strings, lists and dicts are stored"
        )
