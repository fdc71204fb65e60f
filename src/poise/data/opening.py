"""Finding out how a data set is laid out, and opening one of its splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from poise.data import coco, voc, voc_layouts, yolo
from poise.data.class_map import ClassMap
from poise.data.errors import BadData, DataError
from poise.data.faults import FaultLog
from poise.data.files import following_links
from poise.data.folders import SPLIT_WORDS, FileTree, find_folder, is_junk, plain_split, plain_splits
from poise.data.image_set import ImageSet
from poise.data.joining import Paths, as_paths, prepare, source_names
from poise.data.packed import find_packed
from poise.data.yolo_plain import describe_plain
from poise.plugins import load_plugins, origin_of, with_origins
from poise.suggestions import plural

Read = Callable[[FaultLog], ImageSet]
ORDER = ("train", "val", "test", "trainval")
ROBOFLOW = "_annotations.coco.json"


@dataclass(frozen=True)
class DatasetFormat:
    """A layout of data sets that a plug-in reads."""

    splits: Callable[[Path], Sequence[str]]  # names of the splits of a path; empty where it has another layout
    read: Callable[[Path, str], dict[str, object]]  # a split as a COCO dictionary


FORMATS: dict[str, DatasetFormat] = {}  # of plug-ins (``poise.register_dataset_format``), tried after those of poise
LOOKED_FOR = """what was looked for:
  shards of poise: {train,val,test}.annotations.npz
  YOLO: data.yaml (or another .yaml with names: and train:), or classes.txt with images/ and labels/, or obj.data
  Pascal VOC: JPEGImages/ and Annotations/, here or one folder down
  COCO or LVIS: annotations/instances_*.json, annotations/lvis_v1_*.json, annotations/{train,val,test}*.json
  COCO of Roboflow: {train,valid,test}/_annotations.coco.json
  XML files of Pascal VOC next to the images, or in annotations/ or annots/ next to images/
  COCO: one .json file in the folder itself, or the path of a .json"""


@dataclass(frozen=True)
class TrainingSplits:
    """Which splits to train and to validate on."""

    train: str
    val: str
    note: str = ""  # a message for the user, or empty


@dataclass(frozen=True)
class SplitChoice:
    """The split that a command uses where the user may have named none."""

    name: str
    note: str = ""  # for the user, where the first preferred split does not exist


def splits(path: str | Path, follow_links: bool = False) -> tuple[str, ...]:
    """Names of the splits of a data set, ``train``, ``val`` and ``test`` first; ``DataError`` if it is none."""
    return tuple(find_splits(path, follow_links))


def training_splits(
    path: str | Path, train: str | None = None, val: str | None = None, follow_links: bool = False
) -> TrainingSplits:
    """The splits to use where the user named none, or only one of them.

    Training: ``train``, else ``trainval``, else the only split. Validation: ``val``, else ``test``, else the training
    split itself, with a note.
    """
    return choose_splits(path, splits(path, follow_links), train, val)


def choose_splits(path: str | Path, names: tuple[str, ...], train: str | None, val: str | None) -> TrainingSplits:
    """As :func:`training_splits`, of splits that are known by name; ``path`` is for messages."""
    train = _known(path, train, names) if train else _first(names, ("train", "trainval")) or _only(path, names)
    others = tuple(name for name in names if name != train)
    chosen = _known(path, val, names) if val else _first(others, ("val", "test"))
    if chosen is None:
        return TrainingSplits(
            train,
            train,
            f"no validation split: metrics are measured on the training split {train!r} "
            "(--data.val-share 0.1 holds out a tenth of its images)",
        )
    note = "no split val: validating on test" if chosen == "test" and val is None else ""
    return TrainingSplits(train, chosen, note)


def choose_split(
    path: str | Path,
    split: str | None = None,
    preferred: tuple[str, ...] = ("val", "test"),
    follow_links: bool = False,
) -> SplitChoice:
    """Choose the split of a data set that a command uses: one rule for all commands.

    Args:
        path: folder or file of the data set.
        split: name of the split; ``None`` takes the first of ``preferred`` that exists, else the only split.
        preferred: splits in the order of preference.
        follow_links: as in :func:`open_data`.

    Raises:
        DataError: no such split, or several splits of which none is preferred; the message names ``--split``.
    """
    names = splits(path, follow_links)
    if split is not None:
        return SplitChoice(_known(path, split, names))
    name = _first(names, preferred)
    if name is None:
        name = _only(path, names)
        return SplitChoice(name, f"no split {' or '.join(map(repr, preferred))}: using the only split {name!r}")
    return SplitChoice(name, "" if name == preferred[0] else f"no split {preferred[0]!r}: using {name!r}")


def open_data(
    path: Paths,
    split: str | None = None,
    on_bad_data: Literal["error", "skip"] = "error",
    follow_links: bool = False,
    *,
    class_map: ClassMap | None = None,
) -> ImageSet:
    """Open one split of a COCO, LVIS, YOLO or Pascal VOC data set as it is. Nothing is written.

    Images are looked for, but not decoded (``poise.data.check_data`` does that).

    Args:
        path: folder of the data set, a COCO ``.json`` or a YOLO ``.yaml``; of several paths the splits are joined
            (:func:`poise.data.joining.join`).
        split: ``"train"``, ``"val"``, ``"test"`` or another name of :func:`splits`; may be left out where there is
            only one.
        on_bad_data: ``"error"`` refuses a split with faulty records; ``"skip"`` leaves out exactly these and lists
            them in ``ImageSet.skipped``.
        follow_links: read files and folders that links in the data folder lead to, wherever they are.
        class_map: other names of classes; None drops a class (:func:`poise.data.class_map.map_classes`).

    Raises:
        BadData: faulty records, with ``on_bad_data="error"``; lists them.
        DataError: no data set here, no such split, or an unreadable annotation file.
    """
    paths = as_paths(path)
    sets = [open_one(one, split, on_bad_data, follow_links) for one in paths]
    names = source_names([one.root for one in sets]) if len(sets) > 1 else ()
    return prepare(sets, class_map or {}, names)


def open_one(
    path: Path, split: str | None, on_bad_data: Literal["error", "skip"] = "error", follow_links: bool = False
) -> ImageSet:
    """Open a split of one data set; arguments as of :func:`open_data`."""
    if on_bad_data not in ("error", "skip"):
        raise ValueError(f'on_bad_data is {on_bad_data!r}; use "error" or "skip"')
    found = find_splits(path, follow_links)
    name = _known(path, split, tuple(found)) if split else _only(path, tuple(found))
    image_set = found[name](FaultLog())
    if image_set.skipped and on_bad_data == "error":
        raise BadData(path, image_set.skipped)
    if image_set.skipped and not image_set.num_objects:
        raise DataError(
            f"{path}: nothing is left of split {name!r}: {plural(len(image_set.skipped), 'faulty record')} would be "
            f"skipped and {plural(len(image_set), 'image')} without any object remain (the first fault: "
            f"{image_set.skipped[0]}); correct it"
        )
    return image_set


def find_splits(path: str | Path, follow_links: bool = False) -> dict[str, Read]:
    """A function for each split that reads it and logs its faults."""
    with following_links(follow_links):
        found = _find_splits(Path(path))
    return {name: partial(_read, read, follow_links) for name, read in found.items()}


def _read(read: Read, follow_links: bool, log: FaultLog) -> ImageSet:
    with following_links(follow_links):
        return read(log)


def _find_splits(root: Path) -> dict[str, Read]:
    if not root.exists():
        raise DataError(f"{root}: does not exist; give the folder of a data set, a COCO .json or a YOLO .yaml")
    root = root.resolve()
    tree = FileTree(root if root.is_dir() else root.parent)
    found = find_packed(root) or _find_yolo(root, tree)
    if not found and root.is_dir():
        found = _voc_splits(voc_layouts.find_standard(root)) or _find_coco(tree, _marked_files(root))
        found = found or _yolo_splits(describe_plain(root, tree), tree) or _voc_splits(voc_layouts.find_folders(tree))
        found = found or _find_coco(tree, _only_file(root))
    elif not found and root.suffix.lower() == ".json":
        found = _one_json(root)
    found = found or _find_plugged(root, tree)
    if not found:
        own = f"\n  formats of plug-ins: {', '.join(with_origins('dataset format', FORMATS))}" if FORMATS else ""
        raise DataError(f"{root}: no data set found here; {LOOKED_FOR}{own}")
    return {name: found[name] for name in sorted(found, key=lambda n: (ORDER.index(n) if n in ORDER else 9, n))}


def _find_plugged(root: Path, tree: FileTree) -> dict[str, Read]:
    load_plugins()
    for name, form in FORMATS.items():
        if splits := tuple(form.splits(root)):
            return {split: partial(_read_plugged, name, form, root, tree, split) for split in splits}
    return {}


def _read_plugged(name: str, form: DatasetFormat, root: Path, tree: FileTree, split: str, log: FaultLog) -> ImageSet:
    source = f"split '{split}' of {root}, read as '{name}' ({origin_of('dataset format', name)})"
    return replace(coco.read_dictionary(split, tree, form.read(root, split), source, log=log), format=name)


def _find_yolo(path: Path, tree: FileTree) -> dict[str, Read]:
    file = yolo.find(path)
    return {} if file is None else _yolo_splits(yolo.describe(file), tree)


def _yolo_splits(description: yolo.Description | None, tree: FileTree) -> dict[str, Read]:
    if description is None:
        return {}
    return {name: partial(yolo.read, name, tree.root, description, tree) for name in description.splits}


def _voc_splits(layout: voc_layouts.Layout | None) -> dict[str, Read]:
    return {} if layout is None else {name: partial(voc.read, name, layout) for name in layout.splits}


def _find_coco(tree: FileTree, files: list[Path]) -> dict[str, Read]:
    path = tree.root
    roboflow = [file for folder in sorted(path.iterdir()) if (file := folder / ROBOFLOW).is_file()]
    if roboflow:
        names = plain_splits(file.parent.name for file in roboflow)
        found = {name: (file, [file.parent]) for name, file in zip(names, roboflow, strict=True)}
    else:
        names = plain_splits(_suffix(file) for file in files)
        found = {name: (file, _image_folders(path, file, name)) for name, file in zip(names, files, strict=True)}
    return {name: partial(coco.read, name, tree, file, folders) for name, (file, folders) in found.items()}


def _one_json(file: Path) -> dict[str, Read]:
    """A bare JSON: its data set is the folder it lies in, or the one above where that is called annotations."""
    root = file.parent.parent if file.parent.name.lower() == "annotations" else file.parent
    name = plain_split(_suffix(file))
    return {name: partial(coco.read, name, FileTree(root), file, _image_folders(root, file, name))}


def _marked_files(path: Path) -> list[Path]:
    """JSON files whose names say that they are COCO's, LVIS's or of a split."""
    for files in _json_files(path):
        marked = [file for file in files if re.match(r"(instances|lvis_v\d(\.\d)?)_", file.name)]
        named = [file for file in files if re.match(r"(train|val|dev|test|minival)", file.stem, re.IGNORECASE)]
        if marked or named:
            return marked or named
    return []


def _only_file(path: Path) -> list[Path]:
    """The only JSON that could hold boxes."""
    for files in _json_files(path):
        others = r"(captions|person_keypoints|panoptic|stuff|image_info)_"
        plain = [file for file in files if not re.match(others, file.name)]
        if len(plain) == 1:
            return plain
    return []


def _json_files(path: Path) -> list[list[Path]]:
    """JSON files of ``annotations`` and of the folder itself."""
    inner = find_folder(path, ["annotations"])
    folders = [path] if inner is None else [inner, path]
    return [sorted(file for file in folder.glob("*.json") if not is_junk(file.name)) for folder in folders]


def _suffix(file: Path) -> str:
    """``train2017`` of ``instances_train2017.json``."""
    return re.sub(r"^(instances|lvis_v\d(\.\d)?)_|(_annotations)?(\.coco)?$", "", file.stem) or "train"


def _image_folders(root: Path, file: Path, name: str) -> list[Path]:
    """Where the images of a JSON could be, the likeliest first."""
    spellings = [one for one, plain in SPLIT_WORDS.items() if plain == name]
    names = dict.fromkeys((_suffix(file), name, *spellings))
    parents = [root, *(folder for word in ("images", "data") if (folder := find_folder(root, [word])))]
    folders = [folder for one in names for parent in parents if (folder := find_folder(parent, [one]))]
    folders += [*parents[1:], root, file.parent / "images", file.parent / "data", file.parent]
    existing = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
    return existing or [root]


def _known(path: str | Path, name: str, names: tuple[str, ...]) -> str:
    for candidate in (name, plain_split(name)):
        if candidate in names:
            return candidate
    raise DataError(f"{path}: has no split {name!r}; it has {', '.join(names)}")


def _first(names: tuple[str, ...], wanted: tuple[str, ...]) -> str | None:
    return next((name for name in wanted if name in names), None)


def _only(path: str | Path, names: tuple[str, ...]) -> str:
    if len(names) != 1:
        raise DataError(
            f"{path}: has several splits; choose one of {', '.join(names)} "
            "(--split NAME; for training --data.train NAME and --data.val NAME)"
        )
    return names[0]
