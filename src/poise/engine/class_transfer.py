"""Transfer the weights of a model to other classes: rows of a class are copied by the name of the class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.detection_model import DetectionModel
from poise.detection_model.description import Options
from poise.models import create_model
from poise.models.one_to_one import starting_weights
from poise.published.classes import class_rows, remap_rows
from poise.suggestions import plural


@dataclass(frozen=True)
class Transfer:
    """Weights that fit a model, and the classes for which they were trained."""

    weights: dict[str, Tensor]
    matched: tuple[str, ...]  # names of classes that both have
    new: tuple[str, ...]  # names of classes without trained weights

    def __str__(self) -> str:
        if not self.new and not self.matched:
            return ""
        parts = [f"{plural(len(self.matched), 'class')} matched by name{_listed(self.matched)}"]
        return ", ".join([*parts, *([f"{len(self.new)} new{_listed(self.new)}"] if self.new else [])])


def transfer(model: DetectionModel, values: Mapping[str, Tensor], class_names: Sequence[str]) -> Transfer:
    """Fit the weights of a model with ``class_names`` to ``model``, which has the same architecture.

    In parameters that depend on the classes, the rows of classes with the same name are copied; rows of other classes
    keep the values of ``model``. Classes without names (numbers) are matched by position. A one-to-one head starts with
    the weights of the only head.
    """
    own = model.state_dict()
    values = starting_weights(own, values)
    fitting = {name: value for name, value in values.items() if name in own and own[name].shape == value.shape}
    if tuple(class_names) == model.class_names:
        return Transfer(fitting, (), ())
    rows = _rows(model.class_names, class_names)
    remapped = False
    for name in class_parameters(model) & values.keys():
        major = name.rpartition(".")[0].endswith("offsets")
        mixed = remap_rows(own[name], values[name], rows, len(class_names), class_major=major)
        fitting.pop(name, None)
        if mixed is not None:
            fitting[name], remapped = mixed, True
    known = list(zip(model.class_names, rows if remapped else [-1] * len(rows), strict=True))
    matched = tuple(name for name, row in known if row >= 0)
    return Transfer(fitting, matched, tuple(name for name, row in known if row < 0))


def class_parameters(model: DetectionModel) -> set[str]:
    """Return the names of parameters and buffers whose shape depends on the number of classes."""
    options: Options = {**model.options, "backbone_weights": None}
    with torch.device("meta"):
        other = create_model(model.name, num_classes=model.num_classes + 1, **options)
    shapes = {name: value.shape for name, value in other.state_dict().items()}
    return {name for name, value in model.state_dict().items() if shapes.get(name) not in (None, value.shape)}


def _rows(own: Sequence[str], theirs: Sequence[str]) -> list[int]:
    numbers = [str(i) for i in range(max(len(own), len(theirs)))]
    if list(own) == numbers[: len(own)] or list(theirs) == numbers[: len(theirs)]:
        return [i if i < len(theirs) else -1 for i in range(len(own))]
    return class_rows(own, theirs)


def _listed(names: Sequence[str], limit: int = 6) -> str:
    return f" ({', '.join(names[:limit])}{' …' if len(names) > limit else ''})" if names else ""
