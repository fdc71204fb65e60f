"""Load checkpoints of the original projects. Both names are loaded when they are first used: the table of published
checkpoints (``poise.published.table``) needs no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poise.published.loading import LoadReport, load_published

__all__ = ["LoadReport", "load_published"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("poise.published.loading"), name)
