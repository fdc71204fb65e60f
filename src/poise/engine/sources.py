"""Open the training and validation images of a recipe."""

from __future__ import annotations

from poise.data import ImageSet, TrainingSplits, open_data, training_splits, with_proposals
from poise.data.background import limit_background
from poise.data.hold_out import hold_out
from poise.data.image_set import different_classes
from poise.data.repeats import repeated
from poise.recipes import DataSettings
from poise.suggestions import plural


def open_sets(settings: DataSettings) -> tuple[ImageSet, ImageSet | None, list[str]]:
    """Open the training images, the validation images (or None), and notes for the user.

    Raises:
        ValueError: no data set is named, it has faults that are not to be skipped, the splits have different
            classes, or no image is left to train on.
    """
    if not settings.path:
        raise ValueError("no data set: give the folder or file (--data PATH, or data.path in the recipe)")
    wanted = settings.val if settings.val != "none" else settings.train
    links = settings.follow_links
    names = training_splits(settings.path, settings.train or None, wanted or None, links)
    train_set = open_data(settings.path, names.train, settings.on_bad_data, links)
    val_set: ImageSet | None = None
    remarks: list[str] = []
    if settings.val_share:
        train_set, val_set = _hold_out(settings, names, train_set)
        remarks.append(f"{len(val_set)} of the images of split {names.train!r} held out for validation")
    elif settings.val != "none":
        val_set = open_data(settings.path, names.val, settings.on_bad_data, links)
        remarks += [names.note] if names.note else []
    remarks += [
        _skipped(image_set) for image_set in (train_set, val_set) if image_set is not None and image_set.skipped
    ]
    if val_set is not None and (difference := different_classes(train_set, val_set)):
        raise ValueError(f"{difference}; give both the same list of categories")
    _require_objects(settings, train_set)
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
        raise ValueError(f"{settings.path}: split '{names.train}' has no image to train on (of {total} before filters)")
    return _with_proposals(settings, train_set, val_set, remarks)


def _hold_out(settings: DataSettings, names: TrainingSplits, train_set: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Training and validation images of a data set without a validation split."""
    if settings.val or names.val != names.train:
        raise ValueError(
            f"data.val_share={settings.val_share} is for data without a validation split, but the validation split is "
            f"{settings.val or names.val!r}; leave out data.val_share"
        )
    return hold_out(train_set, settings.val_share)


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


def _require_objects(settings: DataSettings, train_set: ImageSet) -> None:
    if len(train_set) and not (~(train_set.objects.crowd | train_set.objects.ignore)).any():
        raise ValueError(
            f"{settings.path}: split '{train_set.name}' has {plural(len(train_set), 'image')} but no object to train "
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
