"""How Pascal VOC data is laid out: ``JPEGImages`` with ``Annotations``, or XML files next to the images or parallel."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from xml.etree.ElementTree import Element

from poise.data.errors import DataError
from poise.data.folders import FileTree, find_folder, folder_key, is_junk, plain_splits, splits_of_folders
from poise.data.images import SUFFIXES, UNSUPPORTED
from poise.data.xml_files import annotation_folders, read_tree

LISTS = "ImageSets/Main"
_PREFERRED = (".jpg", ".jpeg", ".png")  # of several images of one name


@dataclass(frozen=True)
class Labeled:
    """A folder of annotation files and the folder of their images, relative to the root (empty: the root itself)."""

    labels: str
    images: str


@dataclass(frozen=True)
class Split:
    """Where the images of a split are listed: all annotations of ``folders``, or those that a list names."""

    source: str  # for messages
    folders: tuple[Labeled, ...]
    listed: Path | None = None


@dataclass
class Layout:
    """The splits of a VOC data set, and its annotation files, each parsed once."""

    root: Path
    splits: dict[str, Split]
    nested: bool = True  # annotations lie in folders within those of ``splits``, too
    _images: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    @cached_property
    def trees(self) -> dict[str, Element | str]:
        """Every annotation file of all splits by its path without suffix, or why it cannot be parsed."""
        found: dict[str, Element | str] = {}
        for labels in dict.fromkeys(folder.labels for split in self.splits.values() for folder in split.folders):
            for path in sorted(_xml_files(self.root / labels)):
                label = path.relative_to(self.root).as_posix()
                try:
                    found[label[:-4]] = read_tree(self.root, label)
                except DataError as error:
                    found[label[:-4]] = str(error)
        return found

    def stems(self, folder: Labeled) -> list[str]:
        """Annotation files of a folder, relative to it and without suffix."""
        prefix = f"{folder.labels}/" if folder.labels else ""
        stems = [label.removeprefix(prefix) for label in self.trees if label.startswith(prefix)]
        return [stem for stem in stems if self.nested or "/" not in stem]

    def image(self, folder: Labeled, stem: str, named: str) -> str:
        """The image of an annotation, ``named`` in it, relative to the root.

        It has the annotation's name with any suffix of an image, else the name that the annotation states.
        """
        inner, _, name = stem.rpartition("/")
        image_folder = "/".join(part for part in (folder.images, inner) if part)
        candidates = self._listing(image_folder).get(name, [])
        stated = named.replace("\\", "/").rsplit("/", 1)[-1]
        if os.path.splitext(stated)[0] == name and (stated in candidates or not candidates):
            return _join(image_folder, stated)
        if candidates:
            return _join(image_folder, candidates[0])
        if stated in self._listing(image_folder).get(os.path.splitext(stated)[0], []):
            return _join(image_folder, stated)
        return _join(image_folder, f"{name}.jpg")

    def _listing(self, folder: str) -> dict[str, list[str]]:
        """Image files of a folder by their name without suffix."""
        if folder not in self._images:
            found: dict[str, list[str]] = {}
            path = self.root / folder
            for name in sorted(os.listdir(path), key=_preference) if path.is_dir() else []:
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in SUFFIXES | UNSUPPORTED and not is_junk(name):
                    found.setdefault(stem, []).append(name)
            self._images[folder] = found
        return self._images[folder]


def find_standard(root: Path) -> Layout | None:
    """``JPEGImages`` (or ``images``) with ``Annotations`` and, mostly, lists; in ``root`` or one folder below it."""
    inner = sorted(path for path in root.iterdir() if path.is_dir() and not is_junk(path.name))
    found = [folder for folder in [root, *inner] if _standard_folders(folder)]
    if len(found) > 1 and found[0] != root:
        names = ", ".join(folder.name for folder in found)
        raise DataError(f"{root}: holds several VOC data sets ({names}); give the path of one of them")
    return _standard(root, found[0]) if found else None


def _standard_folders(folder: Path) -> tuple[Path, Path] | None:
    """Folders of annotations and images; other names than VOC's own count only where there are lists."""
    labels = find_folder(folder, ["Annotations"])
    images = find_folder(folder, ["JPEGImages", *(["images"] if (folder / LISTS).is_dir() else [])])
    return (labels, images) if labels is not None and images is not None else None


def _standard(root: Path, folder: Path) -> Layout:
    """Splits by the lists, without per-class lists (``cat_train.txt``); without any list everything is ``train``."""
    labels, images = _standard_folders(folder) or (folder, folder)
    pair = Labeled(labels.relative_to(root).as_posix(), images.relative_to(root).as_posix())
    files = [file for file in sorted((folder / LISTS).glob("*.txt")) if "_" not in file.stem and not is_junk(file.name)]
    names = plain_splits(file.stem for file in files)
    splits = {
        name: Split(file.relative_to(root).as_posix(), (pair,), file) for name, file in zip(names, files, strict=True)
    }
    return Layout(root, splits or {"train": Split(pair.labels, (pair,))})


def find_folders(tree: FileTree) -> Layout | None:
    """XML files next to their images (LabelImg, Roboflow) or in folders parallel to them (``images``, ``annots``)."""
    labels = annotation_folders(tree)
    if not labels:
        return None
    images, annotations = (_stems_of(tree, suffixes) for suffixes in (SUFFIXES, (".xml",)))
    folder_of = {folder: _images_of(folder, annotations[folder], images) for folder in labels}
    splits = {
        name: Split(", ".join(folders), tuple(Labeled(_plain(one), folder_of[one]) for one in folders))
        for name, folders in splits_of_folders(labels).items()
    }
    return Layout(tree.root, splits, nested=False)


def _stems_of(tree: FileTree, suffixes: Iterable[str]) -> dict[str, set[str]]:
    """Names without suffix of the files of each folder that have one of the suffixes."""
    return {folder: {os.path.splitext(name)[0] for name in names} for folder, names in tree.having(suffixes).items()}


def _images_of(labels: str, stems: set[str], images: dict[str, set[str]]) -> str:
    """The folder with most images for the annotations ``stems`` of a folder; of equal ones, the one most like it."""

    def rank(folder: str) -> tuple[int, bool, bool]:
        return len(stems & images[folder]), folder == labels, folder_key(folder) == folder_key(labels)

    best = max(images, key=rank, default=labels)
    return _plain(best if best in images and rank(best)[0] else labels)


def _plain(folder: str) -> str:
    return "" if folder == "." else folder


def _xml_files(folder: Path) -> Iterable[Path]:
    for path in folder.rglob("*"):
        inner = path.relative_to(folder).parts
        if path.suffix.lower() == ".xml" and not any(is_junk(part) for part in inner):
            yield path


def _preference(name: str) -> tuple[int, str]:
    suffix = os.path.splitext(name)[1].lower()
    return _PREFERRED.index(suffix) if suffix in _PREFERRED else len(_PREFERRED), name


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
