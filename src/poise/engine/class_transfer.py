"""Weights of a model of poise for other classes: what belongs to a class is carried over by the name of the class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.detectors import DetectionModel
from poise.models import create_model
from poise.published.classes import carried_over, class_rows


@dataclass(frozen=True)
class Transfer:
    """Weights that fit a model, and which of its classes they know."""

    weights: dict[str, Tensor]
    carried: tuple[str, ...]  # names of classes that both have
    new: tuple[str, ...]  # names of classes that start anew

    def __str__(self) -> str:
        if not self.new and not self.carried:
            return ""
        parts = [f"{len(self.carried)} classes carried over by name{_listed(self.carried)}"]
        return ", ".join([*parts, *([f"{len(self.new)} new{_listed(self.new)}"] if self.new else [])])


def transfer(model: DetectionModel, values: Mapping[str, Tensor], class_names: Sequence[str]) -> Transfer:
    """Fit weights of a model with ``class_names`` to ``model``, which is of the same kind.

    Of parameters that depend on the classes, the rows of classes with the same name are taken over; rows of other
    classes keep the values that ``model`` has. Classes without names (numbers) are matched by position.
    """
    own = model.state_dict()
    fitting = {name: value for name, value in values.items() if name in own and own[name].shape == value.shape}
    if tuple(class_names) == model.class_names:
        return Transfer(fitting, (), ())
    rows = _rows(model.class_names, class_names)
    for name in class_parameters(model) & values.keys():
        major = name.rpartition(".")[0].endswith("offsets")
        mixed = carried_over(own[name], values[name], rows, len(class_names), class_major=major)
        fitting.pop(name, None)
        if mixed is not None:
            fitting[name] = mixed
    known = list(zip(model.class_names, rows, strict=True))
    carried = tuple(name for name, row in known if row >= 0)
    return Transfer(fitting, carried, tuple(name for name, row in known if row < 0))


def class_parameters(model: DetectionModel) -> set[str]:
    """Names of parameters and buffers whose shape depends on the number of classes."""
    options = {**model.options, "backbone_weights": None}
    with torch.device("meta"):
        other = create_model(model.name, num_classes=model.num_classes + 1, **options)
    shapes = {name: value.shape for name, value in other.state_dict().items()}
    return {name for name, value in model.state_dict().items() if shapes.get(name) not in (None, value.shape)}


def _rows(own: Sequence[str], theirs: Sequence[str]) -> list[int]:
    numbers = [str(i) for i in range(max(len(own), len(theirs)))]
    if list(own) == numbers[: len(own)] or list(theirs) == numbers[: len(theirs)]:
        return [i if i < len(theirs) else -1 for i in range(len(own))]
    return class_rows(own, theirs)


def _listed(names: Sequence[str], most: int = 6) -> str:
    return f" ({', '.join(names[:most])}{' …' if len(names) > most else ''})" if names else ""
