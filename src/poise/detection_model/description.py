"""The description that rebuilds a model, as model files, checkpoints and exported files store it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from poise.detection_model.model import DetectionModel

Options = dict[str, Any]
"""Keyword arguments of ``create_model``: those of any builder, so that their types are known to it alone."""


class _Required(TypedDict):
    name: str
    num_classes: int
    options: Options
    class_names: list[str]
    category_ids: list[int]


class ModelDescription(_Required, total=False):
    """Name, classes and options of a model, without its weights."""

    packages: list[str]  # with versions, whose plug-ins the model uses
    class_map: dict[str, str | None]


def description_of(model: DetectionModel) -> ModelDescription:
    """Return the description of a model; its packages are left out."""
    description: ModelDescription = {
        "name": model.name,
        "num_classes": model.num_classes,
        "options": dict(model.options),
        "class_names": list(model.class_names),
        "category_ids": list(model.category_ids),
    }
    if model.class_map:
        description["class_map"] = dict(model.class_map)
    return description
