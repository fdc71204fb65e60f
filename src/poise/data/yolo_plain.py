"""YOLO folders without ``data.yaml``: ``classes.txt`` (Label Studio, LabelImg) or ``obj.data`` (Darknet, CVAT)."""

from __future__ import annotations

from pathlib import Path

from poise.data.errors import DataError
from poise.data.files import MEBIBYTE, is_inside, read_text, require_inside
from poise.data.folders import SPLIT_WORDS, FileTree, plain_splits, splits_of_folders
from poise.data.image_set import Category
from poise.data.images import SUFFIXES
from poise.data.yolo import Description
from poise.data.yolo_labels import LabelFinder

NAMES = ("classes.txt", "obj.names", "labels.txt", "predefined_classes.txt")


def describe_plain(root: Path, tree: FileTree) -> Description | None:
    """Classes and splits of such a folder; None where it has no file of class names or no labeled image."""
    darknet = root / "obj.data"
    if darknet.is_file():
        return _describe_darknet(darknet)
    names = _names_file(root, tree)
    folders = _image_folders(tree) if names is not None else []
    if names is None or not folders:
        return None
    splits = {name: tuple(parts) for name, parts in splits_of_folders(folders).items()}
    return Description(names, root, _categories(names), splits)


def _names_file(root: Path, tree: FileTree) -> Path | None:
    """A file of class names in the root, else in the first folder that holds one."""
    candidates = (root / folder / name for folder, files in tree.folders.items() for name in NAMES if name in files)
    return next(candidates, None)


def _image_folders(tree: FileTree) -> list[str]:
    """Folders with an image that has a label file."""
    finder = LabelFinder(tree)
    return [
        folder
        for folder, names in tree.having(SUFFIXES).items()
        if any(finder.find(name if folder == "." else f"{folder}/{name}") for name in names)
    ]


def _categories(file: Path) -> tuple[Category, ...]:
    """One class a line."""
    lines = read_text(require_inside(file.parent, file), MEBIBYTE).rstrip().splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise DataError(f"{file}: line {number} is empty; write one class name a line, in the order of the numbers")
    if not lines:
        raise DataError(f"{file}: holds no class name; write one a line, in the order of the numbers")
    return tuple(Category(i, line.strip()) for i, line in enumerate(lines))


def _describe_darknet(file: Path) -> Description:
    """``obj.data``: lines ``key = value`` with ``names``, ``train`` and ``valid``."""
    root = file.parent
    pairs = (line.partition("=") for line in read_text(file, MEBIBYTE).splitlines())
    content = {key.strip(): value.strip() for key, found, value in pairs if found}
    keys = [key for key in content if key.lower() in SPLIT_WORDS and content[key]]
    if not keys or not content.get("names"):
        raise DataError(f"{file}: needs lines names = FILE and train = FILE")
    names = _below(root, content["names"])
    splits: dict[str, tuple[str, ...]] = {
        name: (_below(root, content[key]),) for name, key in zip(plain_splits(keys), keys, strict=True)
    }
    return Description(file, root, _categories(root / names), splits)


def _below(root: Path, path: str) -> str:
    """A path of ``obj.data``; CVAT writes ``data/obj.names`` for a file that lies in the root."""
    path = path.replace("\\", "/")
    candidates = [path, path.removeprefix("data/"), path.rsplit("/", 1)[-1]]
    return next((one for one in candidates if (root / one).exists() and is_inside(root, root / one)), path)
