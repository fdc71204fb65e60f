"""Open the training and validation images of a recipe."""

from __future__ import annotations

from pathlib import Path

from poise.data import ImageSet, training_splits, with_proposals
from poise.data.background import limit_background
from poise.data.hold_out import hold_out
from poise.data.image_set import different_classes
from poise.data.joining import missing_annotations, prepare, source_names
from poise.data.opening import open_one
from poise.data.repeats import repeated
from poise.recipes import DataSettings
from poise.suggestions import plural


def open_sets(settings: DataSettings) -> tuple[ImageSet, ImageSet | None, list[str]]:
    """Open the training images, the validation images (or None), and notes for the user.

    Raises:
        ValueError: no data set is named, it has faults that are not to be skipped, the splits have different
            classes, or no image is left to train on.
    """
    if not settings.paths:
        raise ValueError("no data set: give the folder or file (--data PATH, or data.path in the recipe)")
    pairs, remarks = _open_pairs(settings)
    sets = [one for pair in pairs for one in pair if one is not None]
    remarks += [_skipped(image_set) for image_set in sets if image_set.skipped]
    for train_one, val_one in pairs:
        if val_one is not None and (difference := different_classes(train_one, val_one)):
            raise ValueError(f"{difference}; give both the same list of categories")
    names = source_names([train_one.root for train_one, _ in pairs]) if len(pairs) > 1 else ()
    several = "train" if names else ""
    train_set = prepare([train_one for train_one, _ in pairs], settings.classes, names, split=several)
    val_set: ImageSet | None = None
    if validated := [i for i, (_, val_one) in enumerate(pairs) if val_one is not None]:
        parts = [val_one for _, val_one in pairs if val_one is not None]
        val_names = [names[i] for i in validated] if names else ()
        val_set = prepare(
            parts, settings.classes, val_names, strict=False, like=train_set, split="val" if names else ""
        )
    remarks += missing_annotations(train_set)
    where = " + ".join(settings.paths)
    _require_objects(where, train_set)
    remarks += [text for image_set in (train_set, val_set) if (text := _unlabeled(image_set))]
    total = len(train_set)
    if not settings.keep_empty or settings.min_side:
        train_set = train_set.filtered(settings.min_side, drop_empty=not settings.keep_empty)
        if len(train_set) < total:
            remarks.append(f"the recipe's filter leaves out {total - len(train_set)} of {total} training images")
    if settings.background_share < 1:
        before, train_set = len(train_set), limit_background(train_set, settings.background_share)
        kept = int((train_set.objects_per_image == 0).sum())
        remarks.append(f"background: {kept} images without objects are used, {before - len(train_set)} are left out")
    if settings.repeat_threshold:
        train_set, distinct = repeated(train_set, settings.repeat_threshold), len(train_set)
        remarks.append(
            f"{len(train_set)} training images per epoch, {distinct} distinct: images of rare classes repeat"
        )
    if not len(train_set):
        raise ValueError(f"{where}: split '{train_set.name}' has no image to train on (of {total} before filters)")
    return _with_proposals(settings, train_set, val_set, remarks)


def _open_pairs(settings: DataSettings) -> tuple[list[tuple[ImageSet, ImageSet | None]], list[str]]:
    """Training and validation images of each data set, before classes are mapped and joined; and notes.

    Of several data sets, those without a validation split are not validated on where others have one.
    """
    train = str(settings.train)
    wanted = settings.val if settings.val != "none" else train
    opening = settings.on_bad_data, settings.follow_links
    remarks: list[str] = []
    choices = [training_splits(path, train or None, wanted or None, settings.follow_links) for path in settings.paths]
    with_val = [choice.val != choice.train for choice in choices]
    if settings.val_share and (settings.val or all(with_val)):
        raise ValueError(
            f"data.val_share={settings.val_share} is for data without a validation split, but the validation split is "
            f"{settings.val or choices[0].val!r}; leave out data.val_share"
        )
    pairs: list[tuple[ImageSet, ImageSet | None]] = []
    for path, choice, has_val in zip(settings.paths, choices, with_val, strict=True):
        which = f"{path}: " if len(choices) > 1 else ""
        train_set = open_one(Path(path), choice.train, *opening)
        val_set: ImageSet | None = None
        if settings.val_share and not has_val:
            train_set, val_set = hold_out(train_set, settings.val_share)
            remarks.append(f"{which}{len(val_set)} of the images of split {choice.train!r} held out for validation")
        elif settings.val != "none" and any(with_val) and not has_val:
            remarks.append(
                f"{path}: no validation split, so it is not validated on (--data.val-share 0.1 holds out some)"
            )
        elif settings.val != "none":
            val_set = open_one(Path(path), choice.val, *opening)
            remarks += [which + choice.note] if choice.note else []
        pairs.append((train_set, val_set))
    return pairs, remarks


def _with_proposals(
    settings: DataSettings, train_set: ImageSet, val_set: ImageSet | None, remarks: list[str]
) -> tuple[ImageSet, ImageSet | None, list[str]]:
    """Add the proposals of the files that the settings name."""
    if not settings.proposals:
        if settings.val_proposals:
            raise ValueError("data.val_proposals without data.proposals: the training images need proposals too")
        return train_set, val_set, remarks
    if val_set is not None and not settings.val_proposals and val_set.name != train_set.name:
        common = sorted(set(map(str, train_set.image_ids())) & set(map(str, val_set.image_ids())))
        if common:
            raise ValueError(
                f"splits '{train_set.name}' and '{val_set.name}' both have images with the id {common[0]}, so one file "
                "of proposals cannot serve both: give that of the validation images as data.val_proposals"
            )
    rest = settings.proposals_limit, settings.on_bad_data
    train_set, notes = with_proposals(train_set, settings.proposals, *rest)
    remarks = remarks + notes
    if val_set is not None:
        val_set, notes = with_proposals(val_set, settings.val_proposals or settings.proposals, *rest)
        remarks += notes
    return train_set, val_set, remarks


def _require_objects(where: str, train_set: ImageSet) -> None:
    if len(train_set) and not (~(train_set.objects.crowd | train_set.objects.ignore)).any():
        raise ValueError(
            f"{where}: split '{train_set.name}' has {plural(len(train_set), 'image')} but no object to train "
            "on; see with poise check whether its annotations were found"
        )


def _unlabeled(image_set: ImageSet | None) -> str:
    """A warning where most images have no object; empty where that is not so."""
    empty = 0 if image_set is None else int((image_set.objects_per_image == 0).sum())
    if image_set is None or 2 * empty <= len(image_set):
        return ""
    what = "no image has an object: AP is undefined" if empty == len(image_set) else "most images have no object"
    return (
        f"split '{image_set.name}': {what} ({empty} of {len(image_set)}); poise check says whether labels are missing"
    )


def _skipped(image_set: ImageSet) -> str:
    examples = "; ".join(str(fault) for fault in image_set.skipped[:3])
    return f"{image_set.name}: {plural(len(image_set.skipped), 'faulty record')} skipped, for example {examples}"
