"""Export detectors to other runtimes; each file is compared with PyTorch."""

from poise.export.compare import ExportComparison, ExportMismatch
from poise.export.formats import FORMATS, default_path
from poise.export.runtime import is_exported, load_exported
from poise.export.writing import export_model

__all__ = [
    "FORMATS",
    "ExportComparison",
    "ExportMismatch",
    "default_path",
    "export_model",
    "is_exported",
    "load_exported",
]
