"""Match the classes of a model with the categories of a data set."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from poise.storage.coco import CocoCategory
from poise.suggestions import plural, shortlist

CURE = "--class-names NAME … in the order of the model's labels, in Python model.set_classes(names)"


class ClassWarning(UserWarning):
    """Model and data set have only some classes in common."""


def match_categories(
    class_names: Sequence[str], category_ids: Sequence[int], categories: Sequence[CocoCategory]
) -> list[int | None]:
    """The data set's category id of each class; ``None`` for a class that it does not have.

    Where ids and names are equal they are kept. Otherwise classes are matched by name, ignoring case, so that a model
    can be evaluated on another data set with the same classes. A model without names (``create_model`` gives numbers)
    is matched by position.

    Raises:
        ValueError: no class in common, or a model without names and a different number of categories.
    """
    given = [(int(record["id"]), str(record.get("name", record["id"]))) for record in categories]
    if list(zip(category_ids, class_names, strict=True)) == given:
        return list(category_ids)
    if list(class_names) == [str(i) for i in range(len(class_names))]:
        return _by_position(len(class_names), given)
    by_name = {name.casefold(): number for number, name in given}
    matched = [by_name.get(name.casefold()) for name in class_names]
    _report(class_names, matched, given)
    return matched


def _by_position(count: int, given: Sequence[tuple[int, str]]) -> list[int | None]:
    if count != len(given):
        listed = [name for _, name in given]
        raise ValueError(
            f"the model has {plural(count, 'class')} without names and the data {len(given)}: {shortlist(listed)}. "
            f"If the data has some of the model's classes, name all of the model's: {CURE}. If not, train the model on "
            "them: poise train MODEL --weights FILE --data PATH"
        )
    return [number for number, _ in given]


def _report(class_names: Sequence[str], matched: Sequence[int | None], given: Sequence[tuple[int, str]]) -> None:
    known = set(matched)
    not_in_data = [name for name, number in zip(class_names, matched, strict=True) if number is None]
    not_in_model = [name for number, name in given if number not in known]
    if len(not_in_data) == len(class_names):
        raise ValueError(
            f"model and data have no class in common: the model has {shortlist(class_names)}, the data "
            f"{shortlist(not_in_model)}. If they are the same classes under other names, give those of the data: "
            f"{CURE}. If not, train the model on them: poise train MODEL --weights FILE --data PATH"
        )
    if not_in_data:
        warnings.warn(
            f"the data has no {shortlist(not_in_data)}; detections of these classes are left out",
            ClassWarning,
            stacklevel=4,
        )
    if not_in_model:
        warnings.warn(
            f"the model has no {shortlist(not_in_model)}; the AP of these classes is 0", ClassWarning, stacklevel=4
        )
