"""Hold out images of a training split for validation, deterministically; and find them again for an evaluation."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Literal

from poise.data.image_set import ImageSet
from poise.data.opening import choose_split, open_data
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
    held = set(order[:number])
    train = image_set.subset([i for i in range(count) if i not in held])
    return train, replace(image_set.subset(sorted(held)), name="val", skipped=())


def held_out_names(run: Path) -> frozenset[str]:
    """File names of the images that the training of a run held out; empty if it held out none."""
    listed = run / VAL_IMAGES
    return frozenset(listed.read_text(encoding="utf-8").splitlines()) if listed.is_file() else frozenset()


def open_for_evaluation(
    path: str | Path,
    split: str | None = None,
    run: Path | None = None,
    on_bad_data: Literal["error", "skip"] = "error",
    follow_links: bool = False,
) -> tuple[ImageSet, str]:
    """Open the images on which a model is evaluated.

    Args:
        path, on_bad_data, follow_links: as in :func:`poise.data.open_data`.
        split: name of the split; ``None``: ``val``, else ``test``, else the images that the training of the model held
            out of the only split, else that split.
        run: folder of the run that trained the model.

    Returns:
        the images, and a note for the user, or an empty string.
    """
    choice = choose_split(path, split, follow_links=follow_links)
    images = open_data(path, choice.name, on_bad_data, follow_links)
    if split is not None or run is None:
        return images, choice.note
    names = held_out_names(run)
    held = [i for i in range(len(images)) if images.path(i).name in names]
    if not held:
        return images, choice.note
    count = f"{len(held)} of the {len(names)}" if len(held) < len(names) else f"the {len(held)}"
    note = f"using {count} images of split {choice.name!r} that the training held out ({run / VAL_IMAGES})"
    return replace(images.subset(held), name="val"), f"{note}; --split {choice.name} takes all"
