"""Where the images of a COCO file lie, whatever its ``file_name`` is: a path of another computer, a URL, a query."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from poise.data.files import FileIndex
from poise.data.folders import FileTree
from poise.data.images import SUFFIXES, UNSUPPORTED

PROBES = 200  # images that are looked for in each folder that could hold them
DEEPEST = 8  # leading folders of a name that may be unknown here


def plain_path(name: str) -> str:
    """The path in a ``file_name``: of a URL without its server, of Label Studio's ``?d=`` what follows it."""
    name = name.replace("\\", "/")
    if "?d=" in name:
        return unquote(name.split("?d=", 1)[1]).lstrip("/")
    if "://" in name:
        return unquote(urlsplit(name).path).lstrip("/") or name
    return name


def locate(names: Sequence[str], tree: FileTree, folders: Sequence[Path]) -> list[str]:
    """Paths of images relative to the root, in the folder that holds most of a sample of them.

    Args:
        names: as the annotations state them.
        tree: the files of the data set.
        folders: where the images could be, the likeliest first; where none holds any, every folder is looked into.
    """
    files = [plain_path(name) for name in names]
    sample = files[:: max(1, len(files) // PROBES)]
    index = FileIndex(tree.root)
    prefixes = [_prefix(folder.relative_to(tree.root).as_posix()) for folder in folders]
    depth = max((file.count("/") for file in sample), default=0)
    variants = [(prefix, dropped) for dropped in range(min(depth, DEEPEST) + 1) for prefix in prefixes]

    def hits(variant: tuple[str, int]) -> int:
        return sum(index.state(_path(file, *variant)) == "present" for file in sample)

    best = max(variants, key=hits)
    if not hits(best):
        best = _in_any_folder(sample, tree) or best
    prefix, dropped = best
    return [prefix + file if "/" not in file else _path(file, prefix, dropped) for file in files]


def _in_any_folder(sample: Sequence[str], tree: FileTree) -> tuple[str, int] | None:
    """The folder that holds most of the files by their bare names, if it holds at least half of them."""
    wanted = {file.rsplit("/", 1)[-1] for file in sample}
    hits = {folder: len(wanted & set(names)) for folder, names in tree.having(SUFFIXES | UNSUPPORTED).items()}
    best = max(hits, key=lambda folder: hits[folder], default="")
    return (_prefix(best), DEEPEST) if best and 2 * hits[best] >= len(wanted) > 0 else None


def _path(file: str, prefix: str, dropped: int) -> str:
    """``file`` below ``prefix`` without ``dropped`` leading folders (all of them from ``DEEPEST`` on)."""
    parts = (file.lstrip("/") if prefix else file).split("/")
    return prefix + "/".join(parts[-1:] if dropped >= DEEPEST else parts[min(dropped, len(parts) - 1) :])


def _prefix(folder: str) -> str:
    return "" if folder == "." else folder + "/"
