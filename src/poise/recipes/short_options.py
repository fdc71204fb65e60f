"""Short names of the usual settings: the same words in Python, on the command line and in ablations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from poise.recipes.convert import setting_paths, with_settings
from poise.recipes.settings import Recipe
from poise.suggestions import closest

SHORT_OPTIONS = {
    "data": "data.path",
    "class_map": "data.classes",
    "batch_size": "data.batch_size",
    "workers": "data.workers",
    "on_bad_data": "data.on_bad_data",
    "follow_links": "data.follow_links",
    "proposals": "data.proposals",
    "model": "model.name",
    "weights": "model.weights",
    "backbone_weights": "model.backbone_weights",
    "image_size": "model.image_size",
    "assigner": "model.options.assigner",
    "sampler": "model.options.sampler",
    "criterion": "model.options.criterion",
    "neck": "model.options.neck",
    "class_balance": "model.options.class_balance",
    "one_to_one": "model.options.one_to_one",
    "object_balance": "model.options.object_balance",
    "score_threshold": "model.options.score_threshold",
    "nms_threshold": "model.options.nms_threshold",
    "max_detections": "model.options.max_detections",
    "nms_similarity": "model.options.nms_similarity",
    "epochs": "schedule.epochs",
    "lr": "optimizer.lr",
    "seed": "train.seed",
    "precision": "train.precision",
    "lab_every": "train.lab_every",
    "loggers": "train.loggers",
}
"""Short name to the path of the setting. ``epochs`` also moves the milestones, and ``lr`` is used without scaling."""

GROUPS = tuple(field.name for field in fields(Recipe))


def with_options(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    """Return a recipe with some settings replaced.

    Args:
        options: short names, groups (``optimizer={"weight_decay": 0.01}``) or paths (``{"data.val": "test"}``).

    Raises:
        ValueError: an unknown name (a similar one is suggested), or a value of the wrong type.
    """
    changes = settings_by_path(options)
    if type(options.get("epochs")) is int:
        recipe = recipe.with_epochs(changes.pop("schedule.epochs"))
    return with_settings(recipe, changes)


def settings_by_path(options: Mapping[str, object]) -> dict[str, Any]:
    """Return short names and groups as ``{"group.name": value}``.

    Raises:
        ValueError: an unknown name, or a setting that is given by two names (``lr`` and ``optimizer.lr``).
    """
    changes: dict[str, Any] = {}
    names: dict[str, str] = {}  # by path
    for name, value in _ungrouped(options):
        path = full_name(name)
        if names.setdefault(path, name) != name:
            raise ValueError(f"{path} is given twice: as {names[path]} and as {name}; leave one out")
        changes[path] = (value,) if path == "model.image_size" and type(value) is int else value
        if name == "lr":
            changes.setdefault("optimizer.lr_batch_size", 0)  # the rate is used as given, whatever the batch
    return changes


def _ungrouped(options: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Yield names and values; the settings of a group have their paths as names."""
    for name, value in options.items():
        if name in GROUPS and isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", item) for inner, item in value.items())
        else:
            yield name, value


def full_name(name: str) -> str:
    """Return the path of a setting.

    Raises:
        ValueError: neither a short name nor a path; a similar one is suggested.
    """
    path = SHORT_OPTIONS.get(name, name)
    if "." in path:
        return path
    by_last_part = {one.rpartition(".")[2]: one for one in setting_paths(Recipe)}
    match = closest(name, SHORT_OPTIONS) or by_last_part.get(closest(name, by_last_part) or "")
    hint = f", did you mean '{match}'?" if match else f"; short names are {', '.join(SHORT_OPTIONS)}"
    raise ValueError(f"no setting '{name}'{hint}")
