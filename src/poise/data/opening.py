"""Finding out how a data set is laid out, and opening one of its splits."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from poise.data import coco, voc, yolo
from poise.data.errors import BadData, DataError
from poise.data.faults import FaultLog
from poise.data.image_set import ImageSet
from poise.data.packed import find_packed

Read = Callable[[FaultLog], ImageSet]
ORDER = ("train", "val", "test", "trainval")
ROBOFLOW = "_annotations.coco.json"
LOOKED_FOR = """what was looked for:
  shards of poise: {train,val,test}.annotations.npz
  YOLO: data.yaml (or another .yaml with names: and train:)
  Pascal VOC: JPEGImages/ and Annotations/, here or one folder down
  COCO or LVIS: annotations/instances_*.json, annotations/lvis_v1_*.json, annotations/{train,val,test}*.json
  COCO of Roboflow: {train,valid,test}/_annotations.coco.json
  COCO: one or more .json files in the folder itself, or the path of a .json"""


@dataclass(frozen=True)
class TrainingSplits:
    """Which splits to train and to validate on."""

    train: str
    val: str
    note: str = ""  # what the user should be told, if anything


def splits(path: str | Path) -> tuple[str, ...]:
    """Names of the splits of a data set, ``train``, ``val`` and ``test`` first; ``DataError`` if it is none."""
    return tuple(find_splits(path))


def training_splits(path: str | Path, train: str | None = None, val: str | None = None) -> TrainingSplits:
    """The splits to use where the user named none, or only one of them.

    Training: ``train``, else ``trainval``, else the only split. Validation: ``val``, else ``test``, else the training
    split itself, which the note says.
    """
    names = splits(path)
    train = _known(path, train, names) if train else _first(names, ("train", "trainval")) or _only(path, names)
    others = tuple(name for name in names if name != train)
    chosen = _known(path, val, names) if val else _first(others, ("val", "test"))
    if chosen is None:
        return TrainingSplits(
            train, train, f"no validation split: metrics are measured on the training split {train!r}"
        )
    note = "no split val: validating on test" if chosen == "test" and val is None else ""
    return TrainingSplits(train, chosen, note)


def open_data(path: str | Path, split: str | None = None, on_bad_data: Literal["error", "skip"] = "error") -> ImageSet:
    """Open one split of a COCO, LVIS, YOLO or Pascal VOC data set as it is. Nothing is written.

    Images are looked for, but not decoded (``poise.data.check_data`` does that).

    Args:
        path: folder of the data set, a COCO ``.json`` or a YOLO ``.yaml``.
        split: ``"train"``, ``"val"``, ``"test"`` or another name of :func:`splits`; may be left out where there is
            only one.
        on_bad_data: ``"error"`` refuses a split with faulty records; ``"skip"`` leaves out exactly these and lists
            them in ``ImageSet.skipped``.

    Raises:
        BadData: faulty records, with ``on_bad_data="error"``; lists them.
        DataError: no data set here, no such split, or an unreadable annotation file.
    """
    if on_bad_data not in ("error", "skip"):
        raise ValueError(f'on_bad_data is {on_bad_data!r}; use "error" or "skip"')
    found = find_splits(path)
    name = _known(path, split, tuple(found)) if split else _only(path, tuple(found))
    image_set = found[name](FaultLog())
    if image_set.skipped and on_bad_data == "error":
        raise BadData(path, image_set.skipped)
    return image_set


def find_splits(path: str | Path) -> dict[str, Read]:
    """A function for each split that reads it and logs its faults."""
    root = Path(path)
    if not root.exists():
        raise DataError(f"{root}: does not exist; give the folder of a data set, a COCO .json or a YOLO .yaml")
    root = root.resolve()
    found = find_packed(root) or _find_yolo(root) or _find_voc(root) or _find_coco(root)
    if not found:
        raise DataError(f"{root}: no data set found here; {LOOKED_FOR}")
    return {name: found[name] for name in sorted(found, key=lambda n: (ORDER.index(n) if n in ORDER else 9, n))}


def _find_yolo(path: Path) -> dict[str, Read]:
    file = yolo.find(path)
    if file is None:
        return {}
    description = yolo.describe(file)
    return {name: partial(yolo.read, name, file.parent, description) for name in description.splits}


def _find_voc(path: Path) -> dict[str, Read]:
    folder = voc.find(path) if path.is_dir() else None
    if folder is None:
        return {}
    return {name: partial(voc.read, name, path, folder, file) for name, file in voc.lists(folder).items()}


def _find_coco(path: Path) -> dict[str, Read]:
    if path.is_file():
        return _one_json(path) if path.suffix.lower() == ".json" else {}
    roboflow = {folder: path / folder / ROBOFLOW for folder in ("train", "valid", "val", "test")}
    found = {_plain(name): (file, [file.parent]) for name, file in roboflow.items() if file.is_file()}
    if not found:
        files = _instance_files(path)
        names = _split_names(files)
        found = {name: (file, _image_folders(path, file, name)) for name, file in zip(names, files, strict=True)}
    return {name: partial(coco.read, name, path, file, folders) for name, (file, folders) in found.items()}


def _one_json(file: Path) -> dict[str, Read]:
    """A bare JSON: its data set is the folder it lies in, or the one above where that is called annotations."""
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    name = _split_names([file])[0]
    return {name: partial(coco.read, name, root, file, _image_folders(root, file, name))}


def _instance_files(path: Path) -> list[Path]:
    for folder in (path / "annotations", path):
        files = sorted(file for file in folder.glob("*.json") if not file.name.startswith("."))
        marked = [file for file in files if re.match(r"(instances|lvis_v\d(\.\d)?)_", file.name)]
        named = [file for file in files if re.match(r"(train|val|valid|test|minival)", file.stem)]
        plain = [
            file for file in files if not re.match(r"(captions|person_keypoints|panoptic|stuff|image_info)_", file.name)
        ]
        if chosen := marked or named or (plain if len(plain) == 1 else []):
            return chosen
    return []


def _suffix(file: Path) -> str:
    """``train2017`` of ``instances_train2017.json``."""
    return re.sub(r"^(instances|lvis_v\d(\.\d)?)_|(_annotations)?(\.coco)?$", "", file.stem) or "train"


def _plain(name: str) -> str:
    """``train`` of ``train2017``, ``val`` of ``valid``; other names as they are."""
    match = re.fullmatch(r"(train|val|valid|validation|test)[-_]?(\d{4})?", name)
    return {"valid": "val", "validation": "val"}.get(match[1], match[1]) if match else name


def _split_names(files: list[Path]) -> list[str]:
    """Plain names where they tell the files apart, else the files' own."""
    own = [_suffix(file) for file in files]
    plain = [_plain(name) for name in own]
    return [short if plain.count(short) == 1 else name for short, name in zip(plain, own, strict=True)]


def _image_folders(root: Path, file: Path, name: str) -> list[Path]:
    """Where the images of a JSON could be, the likeliest first."""
    names = dict.fromkeys((_suffix(file), name, *(("valid",) if name == "val" else ())))
    folders = [root / part / each for each in names for part in ("", "images")]
    folders += [root / "images", root, file.parent / "images", file.parent]
    existing = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
    return existing or [root]


def _known(path: str | Path, name: str, names: tuple[str, ...]) -> str:
    for candidate in (name, _plain(name)):
        if candidate in names:
            return candidate
    raise DataError(f"{path}: has no split {name!r}; it has {', '.join(names)}")


def _first(names: tuple[str, ...], wanted: tuple[str, ...]) -> str | None:
    return next((name for name in wanted if name in names), None)


def _only(path: str | Path, names: tuple[str, ...]) -> str:
    if len(names) != 1:
        raise DataError(f"{path}: has several splits; choose one of {', '.join(names)}")
    return names[0]
