"""Where the YOLO label file of an image lies."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property

from poise.data.files import is_inside
from poise.data.folders import FileTree, folder_key, is_junk
from poise.data.images import SUFFIXES

NO_LABELS = frozenset({"classes", "labels", "obj", "train", "val", "valid", "test", "readme", "license", "notes"})
"""Names (lower case, without suffix) of text files among the labels that are no labels."""


@dataclass
class LabelFinder:
    """Finds the label file of each image of a data set.

    Looked into, in this order:

    1. the folder in which the last ``images`` of the path is ``labels`` (capitals ignored);
    2. the image's own folder;
    3. folders whose path differs only in words for images and labels (``images/train`` and ``labels/train_labels``).
    """

    tree: FileTree
    _listings: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    _conventional_folders: dict[str, list[str]] = field(default_factory=dict)
    other_folders: dict[str, str] = field(default_factory=dict)  # image folders whose labels lie in a folder of kind 3

    def find(self, image: str) -> list[str]:
        """Label files of an image (paths relative to the root), the one to use first; empty where it has none."""
        folder, stem = _split(image)
        found = [
            _join(label_folder, name)
            for label_folder in self._conventional(folder)
            for name in self.listing(label_folder).get(stem, [])
        ]
        if found:
            return found
        for label_folder in self._of_key.get(folder_key(folder), []):
            if names := self.listing(label_folder).get(stem):
                self.other_folders[folder] = label_folder
                return [_join(label_folder, names[0])]
        return []

    def elsewhere(self, image: str) -> str:
        """A label file with the image's name, capitals ignored, that belongs to no image; empty where there is none."""
        return self._unused.get(_split(image)[1].casefold(), "")

    def unused(self, images: list[str]) -> list[str]:
        """Label files in the folders of these images' labels that no image has the name of."""
        stems: dict[str, set[str]] = defaultdict(set)
        for folder in dict.fromkeys(_split(image)[0] for image in images):
            path = self.tree.root / folder
            names = os.listdir(path) if path.is_dir() and is_inside(self.tree.root, path) else []
            present = {os.path.splitext(name)[0] for name in names if not name.lower().endswith(".txt")}
            present |= {stem for parent, stem in map(_split, images) if parent == folder}
            other = [self.other_folders[folder]] if folder in self.other_folders else []
            in_use = self.listing(folder).keys() & present
            for label_folder in [*self._conventional(folder), *other]:
                if label_folder != folder or in_use:
                    stems[label_folder] |= present
        return [
            _join(label_folder, name)
            for label_folder in sorted(stems)
            for stem, names in sorted(self.listing(label_folder).items())
            if stem not in stems[label_folder] and stem.lower() not in NO_LABELS
            for name in names
        ]

    def listing(self, folder: str) -> dict[str, list[str]]:
        """Text files of a folder by their name without suffix, ``.txt`` before ``.TXT``; empty if it leads outside."""
        if folder not in self._listings:
            names: dict[str, list[str]] = defaultdict(list)
            path = self.tree.root / folder
            if os.path.isdir(path) and is_inside(self.tree.root, path):
                for name in sorted(os.listdir(path), reverse=True):  # ".txt" comes after ".TXT"
                    stem, suffix = os.path.splitext(name)
                    if suffix.lower() == ".txt" and not is_junk(name):
                        names[stem].append(name)
            self._listings[folder] = dict(names)
        return self._listings[folder]

    def _conventional(self, folder: str) -> list[str]:
        if folder not in self._conventional_folders:
            parts = folder.split("/") if folder else []
            named = [i for i, part in enumerate(parts) if part.lower() == "images"]
            label_folder = self._sibling(parts, named[-1], "labels") if named else None
            self._conventional_folders[folder] = [folder] if label_folder is None else [label_folder, folder]
        return self._conventional_folders[folder]

    def _sibling(self, parts: list[str], position: int, name: str) -> str | None:
        """The path with the part at ``position`` exchanged for the neighboring folder ``name``, capitals ignored."""
        parent = self.tree.root.joinpath(*parts[:position])
        try:
            folders = sorted(entry.name for entry in os.scandir(parent) if entry.is_dir())
        except OSError:
            return None
        match = name if name in folders else next((one for one in folders if one.lower() == name), None)
        return None if match is None else "/".join([*parts[:position], match, *parts[position + 1 :]])

    @cached_property
    def _texts(self) -> dict[str, list[str]]:
        return {folder: names for folder, names in self.tree.having((".txt",)).items() if folder != "."}

    @cached_property
    def _of_key(self) -> dict[tuple[str, ...], list[str]]:
        """Folders with text files by their key."""
        found: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for folder in self._texts:
            found[folder_key(folder)].append(folder)
        return found

    @cached_property
    def _unused(self) -> dict[str, str]:
        """Text files that are the label of no image, by their name in small letters without suffix."""
        pictures: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for folder, names in self.tree.having(SUFFIXES).items():
            pictures[folder_key(folder)] |= {os.path.splitext(name)[0] for name in names}
        unused: dict[str, str] = {}
        for folder, names in self._texts.items():
            owned = pictures.get(folder_key(folder), set())
            for name in names:
                stem = os.path.splitext(name)[0]
                if stem not in owned and stem.lower() not in NO_LABELS:
                    unused.setdefault(stem.casefold(), _join(folder, name))
        return unused


def _split(image: str) -> tuple[str, str]:
    folder, _, name = image.rpartition("/")
    return folder, os.path.splitext(name)[0]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder and folder != "." else name
