"""Export of one-stage models to other runtimes, each file compared with PyTorch before it is left behind."""

from poise.export.compare import Agreement, ExportMismatch
from poise.export.onnx import export_onnx
from poise.export.runtime import load_onnx

__all__ = ["Agreement", "ExportMismatch", "export_onnx", "load_onnx"]
