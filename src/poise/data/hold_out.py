"""Hold out images of a training split for validation, deterministically; and find them again for an evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from poise.data.class_map import ClassMap
from poise.data.image_set import ImageSet
from poise.data.joining import Paths, as_paths, prepare, source_names
from poise.data.opening import choose_split, open_one
from poise.suggestions import plural

VAL_IMAGES = "val_images.txt"  # of a run folder: the file names of the images that were held out, one a line


def hold_out(image_set: ImageSet, share: float) -> tuple[ImageSet, ImageSet]:
    """Split a data set by image into training and validation images.

    The images with the smallest SHA-256 of their file name are held out. So the choice does not depend on a seed, on
    the order of the images or on the folder, and changes little when images are added.

    Args:
        share: fraction of the images that are held out, in (0, 1); rounded, at least one image.

    Raises:
        ValueError: fewer than two images.
    """
    count = len(image_set)
    if count < 2:
        raise ValueError(f"split {image_set.name!r} has {plural(count, 'image')}: none can be held out for validation")
    digests = [hashlib.sha256(image_set[i].path.name.encode()).digest() for i in range(count)]
    order = sorted(range(count), key=lambda i: (digests[i], i))
    number = min(max(1, round(share * count)), count - 1)
    held_out = set(order[:number])
    train = image_set.subset([i for i in range(count) if i not in held_out])
    return train, replace(image_set.subset(sorted(held_out)), name="val", skipped=())


def held_out_names(run: Path) -> frozenset[str]:
    """File names of the images that the training of a run held out; empty if it held out none."""
    listed = run / VAL_IMAGES
    return frozenset(listed.read_text(encoding="utf-8").splitlines()) if listed.is_file() else frozenset()


def open_for_evaluation(
    path: Paths,
    split: str | None = None,
    run: Path | None = None,
    on_bad_data: Literal["error", "skip"] = "error",
    *,
    follow_links: bool = False,
    class_map: ClassMap | None = None,
    trained_with: ClassMap | None = None,
    preferred: tuple[str, ...] = ("val", "test"),
) -> tuple[ImageSet, str]:
    """Open the images on which a model is evaluated.

    Args:
        path, on_bad_data, follow_links: as in :func:`poise.data.open_data`.
        split: name of the split; ``None``: ``val``, else ``test``, else the images that the training of the model held
            out of the only split, else that split. Of several data sets, those that have only a training split are left
            out where others have more.
        run: folder of the run that trained the model.
        class_map: as in :func:`poise.data.open_data`; None: that of the training.
        trained_with: the class map of the training (``DetectionModel.class_map``), of which only the classes are used
            that the data has.
        preferred: splits in the order of preference.

    Returns:
        the images, and a note for the user, or an empty string.
    """
    paths = as_paths(path)
    found = [_open(one, split, run, on_bad_data, follow_links, preferred) for one in paths]
    names = source_names([one.images.root for one in found]) if len(paths) > 1 else [""]
    named = list(zip(found, names, strict=True))
    chosen = [(one, name) for one, name in named if one.proper] or named
    notes = [f"{name}: {one.note}" if name else one.note for one, name in chosen if one.note]
    if len(chosen) < len(named):
        left_out = ", ".join(name for one, name in named if not one.proper)
        splits = " or ".join(map(repr, preferred))
        notes.append(f"{left_out}: no split {splits}, left out (--split NAME selects a split of all)")
    images = prepare(
        [one.images for one, _ in chosen],
        (trained_with or {}) if class_map is None else class_map,
        [name for _, name in chosen] if len(paths) > 1 else (),
        strict=class_map is not None,
    )
    return images, "; ".join(notes)


@dataclass(frozen=True)
class _Found:
    images: ImageSet
    note: str
    proper: bool  # not the training split of a data set that has no other


def _open(
    path: Path,
    split: str | None,
    run: Path | None,
    on_bad_data: Literal["error", "skip"],
    follow_links: bool,
    preferred: tuple[str, ...],
) -> _Found:
    """Open one data set; its held-out images where it has no preferred split."""
    choice = choose_split(path, split, preferred, follow_links)
    images = open_one(path, choice.name, on_bad_data, follow_links)
    proper = split is not None or choice.name in preferred
    if proper or run is None:
        return _Found(images, choice.note, proper)
    root = images.root
    names = _names_of(held_out_names(run), (root.name, f"{root.parent.name}-{root.name}"))
    held_out = [i for i in range(len(images)) if images.path(i).name in names]
    if not held_out:
        return _Found(images, choice.note, False)
    count = f"{len(held_out)} of the {len(names)}" if len(held_out) < len(names) else f"the {len(held_out)}"
    note = f"using {count} images of split {choice.name!r} that the training held out ({run / VAL_IMAGES})"
    return _Found(replace(images.subset(held_out), name="val"), f"{note}; --split {choice.name} takes all", True)


def validation_names(image_set: ImageSet) -> list[str]:
    """File names of validation images for :data:`VAL_IMAGES`; of joined data sets with the name of their set."""
    names = []
    for i in range(len(image_set)):
        own = image_set.source_id(i)
        names.append(image_set.path(i).name if own is None else f"{own[0]}/{image_set.path(i).name}")
    return sorted(names)


def _names_of(lines: Iterable[str], sets: Sequence[str]) -> set[str]:
    """The names that stand for images of a data set that may be called one of ``sets``."""
    parts = [line.rpartition("/") for line in lines]
    return {name for source, _, name in parts if not source or source in sets}
