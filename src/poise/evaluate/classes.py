"""Which of a data set's categories each class of a model is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any


class ClassWarning(UserWarning):
    """Model and data set share only some classes."""


def category_of_classes(
    class_names: Sequence[str], category_ids: Sequence[int], categories: Sequence[Mapping[str, Any]]
) -> list[int | None]:
    """The data set's category id of each class; ``None`` for a class that it does not have.

    Equal ids with equal names are themselves. Otherwise names decide (upper and lower case are the same), so a model
    can be measured on another data set of the same things. A model without names (``create_model`` gives numbers) goes
    by position.

    Raises:
        ValueError: no class is shared, or a model without names and another number of categories.
    """
    given = [(int(record["id"]), str(record.get("name", record["id"]))) for record in categories]
    if list(zip(category_ids, class_names, strict=True)) == given:
        return list(category_ids)
    if list(class_names) == [str(i) for i in range(len(class_names))]:
        return _by_position(len(class_names), given)
    by_name = {name.casefold(): number for number, name in given}
    found = [by_name.get(name.casefold()) for name in class_names]
    _report(class_names, found, given)
    return found


def _by_position(count: int, given: Sequence[tuple[int, str]]) -> list[int | None]:
    if count != len(given):
        raise ValueError(
            f"the model has {count} classes without names and the data {len(given)} categories; "
            "say which is which with model.set_classes(names, category_ids)"
        )
    return [number for number, _ in given]


def _report(class_names: Sequence[str], found: Sequence[int | None], given: Sequence[tuple[int, str]]) -> None:
    known = set(found)
    foreign = [name for name, number in zip(class_names, found, strict=True) if number is None]
    unlearnt = [name for number, name in given if number not in known]
    if len(foreign) == len(class_names):
        raise ValueError(
            f"model and data share no class: the model knows {_listed(class_names)}, the data {_listed(unlearnt)}; "
            "if the names mean the same, set the data's with model.set_classes(names, category_ids)"
        )
    if foreign:
        warnings.warn(f"the data lacks {_listed(foreign)}; such detections are left out", ClassWarning, stacklevel=4)
    if unlearnt:
        warnings.warn(f"the model never learnt {_listed(unlearnt)}; their AP is 0", ClassWarning, stacklevel=4)


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
