"""Packages that an export needs, and the extras that install them."""

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
        super().__init__(f"{package} is not installed; pip install 'poise[{extra}]' installs what this format needs")


def require_packages(*packages: str) -> None:
    """Raise ``MissingPackage`` unless all packages are installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingPackage(package)
