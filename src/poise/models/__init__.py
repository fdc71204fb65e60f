"""One file a paper; ``create_model`` builds by name. Both names are loaded when they are first used: the builders need
torch, the table of their names (``poise.models.table``) does not."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poise.models.catalog import create_model, list_models

__all__ = ["create_model", "list_models"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("poise.models.catalog"), name)
