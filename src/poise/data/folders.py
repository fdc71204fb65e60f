"""The folders of a data set: which names stand for a split, which for images or labels, and which files are none."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from poise.data.files import links_are_followed

IMAGE_WORDS = frozenset({"image", "images", "img", "imgs", "jpegimages", "pictures", "photos"})
LABEL_WORDS = frozenset(
    {"label", "labels", "annotation", "annotations", "annots", "annot", "ann", "anns", "xml", "xmls", "txt", "txts"}
)
SPLIT_WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "trainval": "trainval",
}  # fmt: skip
_JUNK = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


def is_junk(name: str) -> bool:
    """Whether a file or folder name belongs to an operating system or editor, not to the data.

    Hidden names (``.ipynb_checkpoints``, ``._photo.jpg``) are such, and what ZIP programs and file managers add.
    """
    return name.startswith(".") or name in _JUNK


def plain_split(name: str) -> str:
    """``train`` of ``Train``, ``TRAINING`` or ``train2017``, ``val`` of ``valid`` or ``Validation``; else ``name``."""
    match = re.fullmatch(r"([a-z]+)[-_ ]?(set|split|\d{4})?", name.lower())
    return SPLIT_WORDS.get(match[1], name) if match else name


def plain_splits(names: Iterable[str]) -> list[str]:
    """The plain name of each split where no other split has the same one, else the name as it is."""
    own = list(names)
    plain = [plain_split(name) for name in own]
    return [short if plain.count(short) == 1 else name for short, name in zip(plain, own, strict=True)]


def folder_key(folder: str) -> tuple[str, ...]:
    """What is left of a folder's path without the words for images and labels.

    ``images/train`` and ``labels/train_labels`` have one key, ``("train",)``: labels of the one lie in the other.
    """
    parts = []
    for part in folder.split("/"):
        words = [word for word in re.split(r"[-_ .]+", part.lower()) if word]
        rest = [word for word in words if word not in IMAGE_WORDS and word not in LABEL_WORDS]
        if rest:
            parts.append(plain_split("_".join(rest)))
    return tuple(parts)


def find_folder(parent: Path, names: Iterable[str]) -> Path | None:
    """The first of ``names`` that is a folder of ``parent``, capitals ignored where no folder has the exact name."""
    if not parent.is_dir():
        return None
    names = list(names)
    folders = {path.name: path for path in sorted(parent.iterdir()) if path.is_dir() and not is_junk(path.name)}
    lowered = {name.lower(): path for name, path in reversed(folders.items())}
    return next((path for name in names if (path := folders.get(name) or lowered.get(name.lower()))), None)


class FileTree:
    """All files below a root, listed when they are first needed, without hidden ones and by default linked folders."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def folders(self) -> dict[str, list[str]]:
        """File names of each folder, by its path relative to the root (``"."``: the root itself)."""
        found = {}
        links = links_are_followed()
        for folder, inner, files in os.walk(self.root, followlinks=links):
            inner[:] = sorted(name for name in inner if not is_junk(name))
            if links:  # a link to a folder that holds it would never end
                here = os.path.realpath(folder)
                above = {os.path.realpath(os.path.join(folder, name)): name for name in inner}
                inner[:] = sorted(name for path, name in above.items() if not f"{here}/".startswith(f"{path}/"))
            relative = Path(folder).relative_to(self.root).as_posix()
            found[relative] = sorted(name for name in files if not is_junk(name))
        return found

    def having(self, suffixes: Iterable[str]) -> dict[str, list[str]]:
        """Of each folder, the files with one of these suffixes (lower case); folders without one are left out."""
        wanted = tuple(suffixes)
        chosen = {
            folder: [name for name in names if os.path.splitext(name)[1].lower() in wanted]
            for folder, names in self.folders.items()
        }
        return {folder: names for folder, names in chosen.items() if names}


def files_below(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files of a folder and of those within it that have one of the suffixes, sorted."""
    tree = FileTree(folder).having(suffixes)
    return sorted(folder / inner / name for inner, names in tree.items() for name in names)


def splits_of_folders(folders: Iterable[str]) -> dict[str, list[str]]:
    """Folders by the split that a part of their path names.

    Where no folder names a split, all of them are ``train``; where only some do, each other one is its own split.
    """
    named = {folder: [part for part in folder_key(folder) if part in SPLIT_WORDS.values()] for folder in folders}
    splits: dict[str, list[str]] = {}
    for folder, names in named.items():
        other = "_".join(folder_key(folder)) if any(named.values()) else ""
        splits.setdefault(names[0] if names else other or "train", []).append(folder)
    return splits
