"""The kinds of files that a model can be exported to, and what each cannot do."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poise.export.packages import require_packages

ELSEWHERE = "threshold and NMS run in poise after the file (leave out nms; the detections are the same)"


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: as on the command line.
        suffix: of the file that is named; what belongs to it lies beside it.
        beside: suffixes of the other files that belong to it.
        writing, running, quantizing: packages that each needs.
        refusals: what cannot be done with it (``nms``, ``dynamic``, ``fp16``, ``int8``), and why.
    """

    name: str
    suffix: str
    companions: tuple[str, ...]
    writing: tuple[str, ...]
    running: tuple[str, ...]
    quantizing: tuple[str, ...] = ()
    refusals: Mapping[str, str] = field(default_factory=dict)

    def module(self) -> Any:
        """The module with ``write(plan, path)`` and ``open_file(path, threads)``."""
        return importlib.import_module(f"poise.export.{self.name}")

    def files(self, path: Path) -> list[Path]:
        """All files of an export, ``path`` first."""
        return [path, *(companion(path, suffix) for suffix in self.companions)]

    def check(self, wishes: Mapping[str, bool]) -> None:
        """Refuse what the format cannot do, and what needs a package that is not there.

        Raises:
            ValueError: a wish that is refused, with the reason.
            ImportError: a package is missing.
        """
        for wish, wanted in wishes.items():
            if wanted and wish in self.refusals:
                raise ValueError(f"{self.name} files cannot be written with {wish}: {self.refusals[wish]}")
        require_packages(*self.writing, *self.running, *(self.quantizing if wishes.get("int8") else ()))


def companion(path: Path, suffix: str) -> Path:
    """``model.bin`` of ``model.xml``; ``model.ncnn.bin`` of ``model.ncnn.param``."""
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
                "nms": f"ncnn has no layer for it; {ELSEWHERE}",
                "dynamic": "the converter fixes every size; export one file a size (poise.create_model's image_size)",
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
                "nms": f"ExecuTorch's portable kernels have none; {ELSEWHERE}",
                "dynamic": "memory is planned ahead for one size; export one file a size",
            },
        ),
    )
}


def format_of(path: Path) -> Format | None:
    """By the file's suffix; None for what is no exported file."""
    return next((kind for kind in FORMATS.values() if path.suffix == kind.suffix), None)


def default_path(checkpoint: Path, name: str) -> Path:
    """``model.onnx``, ``model.xml``, ``model.ncnn.param``, ``model.pte`` beside ``model.pt``."""
    return checkpoint.with_suffix(".ncnn.param" if name == "ncnn" else FORMATS[name].suffix)
