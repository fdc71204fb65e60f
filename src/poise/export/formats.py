"""File formats of the export and their limitations."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poise.export.packages import require_packages

AFTERWARD = (
    "without nms, poise applies threshold and NMS (of a model without NMS, threshold and top-k) to the outputs of the "
    "file, with the same detections"
)


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        name: name on the command line.
        suffix: suffix of the main file.
        companions: suffixes of the other files, which have the same stem.
        writing, running, quantizing: required packages.
        refusals: unsupported features (``nms``, ``dynamic``, ``fp16``, ``int8``) and the reason.
    """

    name: str
    suffix: str
    companions: tuple[str, ...]
    writing: tuple[str, ...]
    running: tuple[str, ...]
    quantizing: tuple[str, ...] = ()
    refusals: Mapping[str, str] = field(default_factory=dict)

    def module(self) -> Any:
        """Import the module with ``write(plan, path)`` and ``open_file(path, threads)``."""
        return importlib.import_module(f"poise.export.{self.name}")

    def files(self, path: Path) -> list[Path]:
        """Return all files of an export, ``path`` first."""
        return [path, *(companion(path, suffix) for suffix in self.companions)]

    def check(self, features: Mapping[str, bool]) -> None:
        """Check that the format supports the features and that the packages are installed.

        Raises:
            ValueError: a feature that is not supported, with the reason.
            ImportError: a package is missing.
        """
        for feature, wanted in features.items():
            if wanted and feature in self.refusals:
                raise ValueError(f"{self.name} files cannot be written with {feature}: {self.refusals[feature]}")
        require_packages(*self.writing, *self.running, *(self.quantizing if features.get("int8") else ()))


def companion(path: Path, suffix: str) -> Path:
    """Return the path of a companion: ``model.bin`` of ``model.xml``, ``model.ncnn.bin`` of ``model.ncnn.param``."""
    return path.with_name(path.name + suffix) if path.suffix == ".pte" else path.with_suffix(suffix)


ONNX_WRITING = ("onnx", "onnxscript", "onnxruntime")

FORMATS = {
    kind.name: kind
    for kind in (
        Format("onnx", ".onnx", (), ONNX_WRITING, ("onnxruntime",)),
        Format("openvino", ".xml", (".bin",), (*ONNX_WRITING, "openvino"), ("openvino",), ("nncf",)),
        Format(
            "ncnn",
            ".param",
            (".bin", ".json"),
            ("pnnx",),
            ("ncnn",),
            refusals={
                "nms": f"ncnn has no NMS layer; {AFTERWARD}",
                "dynamic": "the converter fixes every size; export one file per size (create_model's image_size)",
                "int8": "ncnn's tools for it (ncnn2table, ncnn2int8) are not in its Python package; use fp16, or run "
                "these tools of an ncnn release on the fp32 files",
            },
        ),
        Format(
            "executorch",
            ".pte",
            (".json",),
            ("executorch",),
            ("executorch",),
            ("torchao",),
            refusals={
                "nms": f"ExecuTorch has no NMS kernel; {AFTERWARD}",
                "dynamic": "memory is planned for one size; export one file per size",
            },
        ),
    )
}


def format_of(path: Path) -> Format | None:
    """Return the format of a file by its suffix, or None if it is not an exported file."""
    return next((kind for kind in FORMATS.values() if path.suffix == kind.suffix), None)


def default_path(checkpoint: Path, name: str) -> Path:
    """Return the path for a checkpoint: ``model.onnx``, ``model.xml``, ``model.ncnn.param`` or ``model.pte``."""
    return checkpoint.with_suffix(".ncnn.param" if name == "ncnn" else FORMATS[name].suffix)
