"""Reading files of tensors without running or unpacking what they bring along."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections import Counter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from safetensors import SafetensorError

from poise.storage.seal import ARCHIVE, TENSORS_HASH, flaw, hash_of_tensors

if TYPE_CHECKING:
    from torch import Tensor

_FOREIGN = "Use a file written by poise; weights of other projects are read by poise.load_published"
_TORN = "Use an earlier file (a run keeps previous.pt next to last.pt) or copy the file again from its source"
_UNSAFE = (
    "Files that hold Python objects with the weights, or packed data, are refused; save its state dict alone in a "
    "trusted environment and load that"
)
_MALFORMED = (
    pickle.UnpicklingError, zipfile.BadZipFile, struct.error, RuntimeError, EOFError, ValueError, LookupError,
    AttributeError, TypeError, AssertionError, ArithmeticError, MemoryError,
)  # fmt: skip
"""What PyTorch and ``zipfile`` raise on files that are not what they should be."""


class DamagedFile(ValueError):
    """A file that cannot be trusted: truncated, altered, or not written by poise."""

    def __init__(self, path: str | os.PathLike[str], why: str, cure: str) -> None:
        super().__init__(f"{os.fspath(path)}: {why}. {cure}")
        self.path = Path(path)
        self.why = why
        self.cure = cure

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self.path), self.why, self.cure)


def read_safely(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file of :func:`save_atomically`; tensors arrive on the CPU.

    Nothing in the file is executed: its checksum is verified first, and it is unpickled with ``weights_only=True``.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: the file is truncated, altered, or was not written by poise.
    """
    with open(path, "rb") as file:
        why, ours = flaw(file)
        if why:
            raise DamagedFile(path, why, _TORN if ours else _FOREIGN)
        payload = _load(file, path, _FOREIGN)
    if not isinstance(payload, dict):
        raise DamagedFile(path, f"it holds a {type(payload).__name__}, not a dict", _FOREIGN)
    return payload


def load_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a file of weights from elsewhere holds: ``.safetensors``, or what ``torch.save`` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it holds anything that could run or unpack, is damaged, or is something else.
    """
    if Path(path).suffix.lower() == ".safetensors":
        return _load_safetensors(path)
    with open(path, "rb") as file:
        content = _load(file, path, _UNSAFE)
    if not isinstance(content, dict):
        raise DamagedFile(path, f"it holds a {type(content).__name__}, not weights by name", _UNSAFE)
    return content


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the texts in the header of a ``.safetensors`` file.

    Raises:
        DamagedFile: it is no such file.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, *_MALFORMED) as error:
        raise DamagedFile(path, f"it is no safetensors file ({error})", "Copy it again from its source") from error


def _load_safetensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    expected = read_metadata(path).get(TENSORS_HASH)
    try:
        content = load_file(path)
    except (SafetensorError, *_MALFORMED) as error:
        raise DamagedFile(path, f"it is no safetensors file ({error})", "Copy it again from its source") from error
    with open(path, "rb") as file:
        if expected is not None and hash_of_tensors(file) != expected:
            raise DamagedFile(path, "its checksum does not match: the content was altered or damaged", _TORN)
    return content


def _load(file: IO[bytes], path: str | os.PathLike[str], cure: str) -> Any:
    """The content of a ``torch.save`` file, which may hold nothing but plain data and tensors."""
    import torch  # reading text needs none of it

    file.seek(0)
    try:
        if file.read(4) == ARCHIVE and (why := _trick(file)):
            raise DamagedFile(path, why, cure)
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)
    except DamagedFile:
        raise
    except _MALFORMED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedFile(path, f"it cannot be loaded safely ({reason})", cure) from error


def _trick(file: IO[bytes]) -> str:
    """Why an archive could unpack to more than it is; empty where it could not."""
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    repeated = [name for name, count in Counter(entry.filename for entry in entries).items() if count > 1]
    if repeated:
        return f"its archive holds '{repeated[0][:80]}' twice"
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
        return "its archive is compressed or encrypted, which PyTorch never writes: it could unpack to any size"
    if sum(entry.file_size for entry in entries) > size:
        return "its archive claims to hold more than the file's size"
    return ""
