"""What an export needs beside poise itself, and which extra brings it."""

from __future__ import annotations

import importlib.util

EXTRAS = {
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "openvino": "openvino",
    "nncf": "openvino",
    "ncnn": "ncnn",
    "pnnx": "ncnn",
    "executorch": "executorch",
    "torchao": "executorch",
}


class MissingPackage(ImportError):
    """A package that an export needs is not installed."""

    def __init__(self, package: str) -> None:
        extra = EXTRAS.get(package, "export")
        super().__init__(f"{package} is not installed; pip install 'poise[{extra}]' brings what such files need")


def require_packages(*packages: str) -> None:
    """Refuse to begin without these packages."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingPackage(package)
