"""Export detectors to other runtimes; each file is compared with PyTorch.

Each name is loaded when it is first used: an exported file runs without the code of the networks.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poise.export.compare import ExportComparison, ExportMismatch
    from poise.export.formats import FORMATS, default_path
    from poise.export.runtime import is_exported, load_exported
    from poise.export.writing import export_model

_FILE_OF = {
    "FORMATS": "formats",
    "ExportComparison": "compare",
    "ExportMismatch": "compare",
    "default_path": "formats",
    "export_model": "writing",
    "is_exported": "runtime",
    "load_exported": "runtime",
}

__all__ = [
    "FORMATS",
    "ExportComparison",
    "ExportMismatch",
    "default_path",
    "export_model",
    "is_exported",
    "load_exported",
]


def __getattr__(name: str) -> object:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"poise.export.{_FILE_OF[name]}"), name)
