"""Settings of a recipe as keyword arguments: short names for the usual ones, groups as dicts, paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHORT_SETTINGS = {
    "batch_size": "data.batch_size",
    "workers": "data.workers",
    "on_bad_data": "data.on_bad_data",
    "proposals": "data.proposals",
    "image_size": "model.image_size",
    "seed": "train.seed",
    "lr": "optimizer.lr",
}


def settings_by_path(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Short names and groups as ``{"group.name": value}``."""
    changes: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and name not in SHORT_SETTINGS:
            changes.update({f"{name}.{inner}": item for inner, item in value.items()})
        else:
            single = name == "image_size" and isinstance(value, int)
            changes[SHORT_SETTINGS.get(name, name)] = (value,) if single else value
    if "lr" in settings:
        changes.setdefault("optimizer.lr_batch_size", 0)  # a rate that is given is used as it stands
    return changes
