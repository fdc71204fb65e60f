"""Looking files up inside the root of a data set, and nowhere else."""

from __future__ import annotations

import contextlib
import os
import stat
import unicodedata
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path, PurePosixPath

from poise.data.errors import FOLLOW, DataError

MEBIBYTE = 1 << 20
_follow_links: ContextVar[bool] = ContextVar("_follow_links", default=False)


@contextlib.contextmanager
def following_links(follow: bool) -> Iterator[None]:
    """While data is opened, accept links in a data folder that lead elsewhere (``follow``), or refuse them."""
    token = _follow_links.set(follow)
    try:
        yield
    finally:
        _follow_links.reset(token)


def links_are_followed() -> bool:
    """Return whether links that lead out of a data folder are accepted."""
    return _follow_links.get()


def is_inside(root: Path, path: Path) -> bool:
    """Whether ``path``, links followed, lies in ``root``; while links are followed, its name alone decides."""
    try:
        if links_are_followed():
            return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL byte
        return False


def require_inside(root: Path, path: Path) -> Path:
    """``path`` itself, or a ``DataError`` where it leads out of ``root``."""
    if not is_inside(root, path):
        raise DataError(
            f"{path}: leads out of the data folder {root} ('..' or a link); move the files into the data folder, "
            f"or give the folder that holds everything ({FOLLOW})"
        )
    return path


def size_of_file(path: Path) -> int:
    """Bytes of an ordinary file; ``DataError`` for a pipe or device, which could keep its reader waiting for ever."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path}: is no ordinary file; replace it by a file of annotations")
    return found.st_size


def read_bytes(path: Path, limit: int = 16 * MEBIBYTE) -> bytes:
    """Content of a file; ``DataError`` where it is unreadable or larger than ``limit`` bytes."""
    try:
        size = size_of_file(path)
        if size > limit:
            raise DataError(f"{path}: {size} bytes are more than the limit of {limit} for such a file; split it up")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the file and its rights") from error


def read_text(path: Path, limit: int = 16 * MEBIBYTE) -> str:
    """Text of a UTF-8 file; ``DataError`` where it is unreadable, larger than ``limit`` bytes or not UTF-8."""
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from error


class FileIndex:
    """DecoderOutput whether files exist below a root, with one listing a folder instead of one look a file.

    Names must agree in upper and lower case, as on Linux, unless the file system itself takes them for one (Windows,
    macOS): a data set that opens on one computer does not silently lose images on another.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[str, dict[str, bool]] = {}
        self._folded: dict[str, dict[str, str]] = {}

    def state(self, file: str) -> str:
        """``"present"``, ``"missing"`` or ``"outside"`` for a path relative to the root."""
        folder, _, name = file.rpartition("/")
        relative = file[:1] not in ("", "/", "\\") and ".." not in folder
        if relative and self._folders.get(folder or ".", {}).get(name) is False:
            return "present"  # in a listing, and no link: most files, without parsing their paths
        if file.startswith(("//", "\\\\")):  # another computer, on Windows: not even looked at
            return "outside"
        path = PurePosixPath(file)
        if not file or "\0" in file or path.is_absolute() or ".." in path.parts:
            return "outside" if file and is_clearly_outside(self.root, file) else self._resolved(file)
        name = path.name
        if name not in self._listing(str(path.parent)) and (near := self.near(file)) and self._is_file(file):
            name = near
        link = self._listing(str(path.parent)).get(name)
        if link is None:
            return "outside" if self._leaves(str(path.parent)) else "missing"
        return "outside" if link and not is_inside(self.root, self.root / file) else "present"

    def _resolved(self, file: str) -> str:
        """State of a path with ``..`` that stays inside."""
        if not file or "\0" in file:
            return "missing"
        return "present" if self._is_file(file) else "missing"

    def near(self, file: str) -> str:
        """A name in the folder that differs only in upper and lower case or in how accents are stored; else empty."""
        path = PurePosixPath(file)
        folder = str(path.parent)
        if folder not in self._folded:
            self._folded[folder] = {_fold(name): name for name in self._listing(folder)}
        found = self._folded[folder].get(_fold(path.name), "")
        return found if found != path.name else ""

    def _is_file(self, file: str) -> bool:
        return os.path.isfile(self.root / file)

    def _leaves(self, folder: str) -> bool:
        return os.path.exists(self.root / folder) and not is_inside(self.root, self.root / folder)

    def _listing(self, folder: str) -> dict[str, bool]:
        """Names of the files of a folder, and whether each is a link; empty where the folder leads outside."""
        if folder not in self._folders:
            self._folders[folder] = {}
            path = self.root / folder
            if os.path.isdir(path) and is_inside(self.root, path):
                with os.scandir(path) as entries:
                    self._folders[folder] = {entry.name: entry.is_symlink() for entry in entries}
        return self._folders[folder]


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def is_clearly_outside(root: Path, file: str) -> bool:
    """Whether a path relative to ``root`` leads out of it."""
    return "\0" not in file and not is_inside(root, root / file)
