"""What an exported file says of itself: enough to preprocess images for it and to read its outputs."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Literal

from poise import postprocess
from poise.detectors import DetectionModel
from poise.preprocess import Preprocess

KEY = "poise"  # of a file's metadata
FORMAT = "poise-export-2"

Outputs = Literal["decoded", "detections", "raw"]
Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class ExportMetadata:
    """A model without its network.

    ``outputs`` is what the file gives: ``decoded`` boxes and scores of every place, the ``detections`` of one image, or
    ``raw``, the outputs of the head's layers.
    """

    model: dict[str, Any]  # name, num_classes, options, class_names, category_ids
    preprocess: Preprocess
    postprocess: Any  # a dataclass of ``poise.postprocess``
    levels: tuple[tuple[int, int], ...]  # stride and predictions a cell of each level
    channels: int  # of the pyramid's maps
    outputs: Outputs
    names: tuple[str, ...]  # of the outputs, in order
    size: tuple[int, int] | None  # height and width of the input; None: any batch, height and width
    precision: Precision

    @property
    def takes_size(self) -> bool:
        """Whether the file takes the image's size before padding as a second input."""
        return self.outputs == "detections" and self.preprocess.keep_ratio

    def level_shapes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Height and width of each level's map for an input of this size."""
        return [(-(-height // stride), -(-width // stride)) for stride, _ in self.levels]

    def level_sizes(self, height: int, width: int) -> tuple[int, ...]:
        """Predictions of each level of an input of this size."""
        shapes = self.level_shapes(height, width)
        return tuple(rows * columns * count for (rows, columns), (_, count) in zip(shapes, self.levels, strict=True))

    def to_text(self) -> str:
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["preprocess"] = asdict(self.preprocess)
        content["postprocess"] = _described(self.postprocess)
        return json.dumps({"format": FORMAT, **content})

    @staticmethod
    def from_text(text: str) -> ExportMetadata:
        """Read back what :meth:`to_text` wrote.

        Raises:
            ValueError: it is not that.
        """
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"its description is damaged ({error}): export it again") from error
        found = content.pop("format", None) if isinstance(content, dict) else None
        if found != FORMAT:
            raise ValueError(f"its description has the format {found!r}, not {FORMAT!r}: export it again")
        content["preprocess"] = Preprocess(**_tuples(content["preprocess"]))
        content["postprocess"] = _postprocess(content["postprocess"])
        content["levels"] = tuple((int(stride), int(count)) for stride, count in content["levels"])
        return ExportMetadata(**_tuples(content))


def describe(model: DetectionModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "num_classes": model.num_classes,
        "options": dict(model.options),
        "class_names": list(model.class_names),
        "category_ids": list(model.category_ids),
    }


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _described(post: Any) -> dict[str, Any]:
    """A post-processing by its kind and settings; functions by their names."""
    _kind(type(post).__name__)
    values = {field.name: getattr(post, field.name) for field in fields(post)}
    named = {name: {"function": _name(value)} if callable(value) else value for name, value in values.items()}
    return {"kind": type(post).__name__, **named}


def _postprocess(content: dict[str, Any]) -> Any:
    values = {
        name: getattr(postprocess, value["function"]) if isinstance(value, dict) else value
        for name, value in content.items()
        if name != "kind"
    }
    return _kind(content["kind"])(**_tuples(values))


def _kind(name: str) -> Callable[..., Any]:
    kind = getattr(postprocess, name, None)
    if not (inspect.isclass(kind) and is_dataclass(kind)):
        raise ValueError(f"the post-processing '{name}' cannot be described in a file; poise.postprocess has no such")
    return kind


def _name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", "")
    if getattr(postprocess, name, None) is not function:
        raise ValueError(
            f"'{name}' of the post-processing cannot be described in a file: it is not poise.postprocess's"
        )
    return name
