"""Writing files so that at any moment the old or the new one is there, whole."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from poise.storage.seal import TENSORS_HASH, hash_of_tensors, seal

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Buffer


def save_atomically(
    path: str | os.PathLike[str], payload: Mapping[str, object], keep: str | os.PathLike[str] | None = None
) -> None:
    """Write ``payload`` to ``path`` so that at any moment the old or the new file is there, whole.

    Args:
        path: the file; its folder is made where it is missing.
        payload: nested dicts, lists and tuples of tensors, numbers, strings, bytes, booleans and ``None``.
        keep: name in the same folder that the old file gets; a file of that name is replaced when the new one is whole.

    Raises:
        TypeError: the payload holds something else (it could not be read back safely).
        OSError: the disk is full or the folder cannot be written, with the file's name; the old file is unharmed.
    """
    import torch  # writing text needs none of it

    path = Path(path)
    _check_plain(payload, path.name)

    def fill(file: _Written) -> None:
        torch.save(payload, file)
        seal(file)

    _write_atomically(path, fill, Path(keep) if keep is not None else None)


def save_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors, their checksum and texts about them as safetensors, as safely as :func:`save_atomically`.

    Args:
        path: the file; its folder is made where it is missing.
        tensors: by name, each contiguous and with memory of its own.
        metadata: texts by name, for the head of the file.
    """
    from safetensors.torch import save

    texts = {"format": "pt", **(metadata or {})}
    digest = hash_of_tensors(io.BytesIO(save(dict(tensors), texts)))  # it does not depend on the texts
    content = save(dict(tensors), {**texts, TENSORS_HASH: digest})
    _write_atomically(Path(path), lambda file: file.write(content), None)


def write_bytes_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file, such as a picture, as safely as :func:`save_atomically`."""
    _write_atomically(Path(path), lambda file: file.write(content), None)


def write_text_atomically(path: str | os.PathLike[str], text: str | Iterable[str]) -> None:
    """Write ``text`` (UTF-8), in one piece or as it comes, with the same guarantee as :func:`save_atomically`.

    Names of files may hold bytes that are not UTF-8 (on Linux): each is written as JSON spells it, ``\\udcXX``.
    """

    def fill(file: _Written) -> None:
        for part in [text] if isinstance(text, str) else text:
            file.write(part.encode("utf-8", "backslashreplace"))

    _write_atomically(Path(path), fill, None)


class _Written(io.BufferedRandom):
    """A file that remembers why it could not be written: PyTorch's archive writer hides the reason."""

    failure: OSError | None = None

    def write(self, data: Buffer) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


def _write_atomically(path: Path, fill: Callable[[_Written], object], keep: Path | None) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:200]}.", suffix=".part")
        temporary = Path(name)
        try:
            _fill_and_sync(_Written(io.FileIO(handle, "r+")), fill)
            os.chmod(temporary, 0o644)
            _put_in_place(temporary, path, keep)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        why = f"{error.strerror or error} while it was written; what was there before is unharmed"
        raise OSError(error.errno, why, str(path)) from error


def _fill_and_sync(file: _Written, fill: Callable[[_Written], object]) -> None:
    with contextlib.closing(file):
        try:
            fill(file)
        except RuntimeError as error:  # PyTorch raises it instead of the reason
            if file.failure is None:
                raise
            raise file.failure from error
        file.flush()
        os.fsync(file.fileno())


def _put_in_place(temporary: Path, path: Path, keep: Path | None) -> None:
    """Rename; the old file is kept under its new name, which is taken from another only after the new one is safe."""
    if keep is None or not path.exists():
        os.replace(temporary, path)
        sync_folder(path.parent)
        return
    aside = keep.with_name(f".{keep.name}.part")
    aside.unlink(missing_ok=True)
    try:
        os.link(path, aside)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, aside)
    os.replace(temporary, path)
    sync_folder(path.parent)
    os.replace(aside, keep)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable (where the system can: not on Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_plain(value: object, where: str) -> None:
    """Refuse what ``weights_only`` loading would refuse, before an unreadable file is written."""
    import torch

    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_plain(key, f"a key of {where}")
            _check_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, (str, bytes)) or value is None or type(value) in (bool, int, float):
        return
    elif isinstance(value, Sequence) and type(value) in (list, tuple, torch.Size):
        for position, item in enumerate(value):
            _check_plain(item, f"{where}[{position}]")
    elif not isinstance(value, (torch.Tensor, torch.dtype)):
        raise TypeError(
            f"{where} is a {type(value).__name__}; only tensors, numbers, strings, lists and dicts are stored"
        )
