"""Metadata of an exported file: how to preprocess images for it and how to read its outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, cast, get_args

from poise import postprocess
from poise.detection_model.description import ModelDescription
from poise.postprocess import AnyPostProcess, PostProcess, RegionPostProcess, SoftNMSPostProcess, TopKPostProcess
from poise.preprocess import Preprocess

KEY = "poise"  # entry of the file's metadata
NO_METADATA = "it has no metadata about classes and preprocessing: export its checkpoint again (poise export)"
FORMAT, VERSION = "poise-export-", 3

Kind = Literal["dense", "regions", "queries"]
Outputs = Literal["decoded", "detections", "raw"]
Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class ExportMetadata:
    """Description of an exported model without its network.

    ``outputs`` of the file are ``decoded`` boxes and scores of every prior, the ``detections`` of one image, or the
    ``raw`` outputs of the head's layers. The ``kind`` is that of the predictions: of dense priors, of regions
    (two-stage detectors), or of queries.
    """

    kind: Kind
    model: ModelDescription
    preprocess: Preprocess
    postprocess: AnyPostProcess
    levels: tuple[tuple[int, int], ...]  # stride and predictions per cell of each level; none unless dense
    channels: int  # of the feature maps; 0 unless dense
    outputs: Outputs
    inputs: tuple[
        str, ...
    ]  # ``pixels`` and perhaps ``size`` (2,) or ``sizes`` (B,2) before padding, ``proposals`` (B,S,4)
    names: tuple[str, ...]  # of the outputs, in order
    size: tuple[int, int] | None  # height and width of the input; None: any batch, height and width
    precision: Precision

    @property
    def dense_postprocess(self) -> PostProcess:
        """The post-processing of a dense detector."""
        return cast(PostProcess, self.postprocess)

    @property
    def selection(self) -> RegionPostProcess | TopKPostProcess | SoftNMSPostProcess:
        """The post-processing of a detector with regions or queries."""
        return cast("RegionPostProcess | TopKPostProcess | SoftNMSPostProcess", self.postprocess)

    def level_shapes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return height and width of each feature map for an input of this size."""
        return [(-(-height // stride), -(-width // stride)) for stride, _ in self.levels]

    def level_sizes(self, height: int, width: int) -> tuple[int, ...]:
        """Return the number of predictions of each level for an input of this size."""
        shapes = self.level_shapes(height, width)
        return tuple(rows * columns * count for (rows, columns), (_, count) in zip(shapes, self.levels, strict=True))

    def to_text(self) -> str:
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["preprocess"] = asdict(self.preprocess)
        content["postprocess"] = _encoded_postprocess(self.postprocess)
        return json.dumps({"format": f"{FORMAT}{VERSION}", **content})

    @staticmethod
    def from_text(text: str) -> ExportMetadata:
        """Parse the result of :meth:`to_text`.

        Raises:
            ValueError: the text is damaged or has another format.
        """
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"its metadata is damaged ({error}): export it again") from error
        found = str(content.pop("format", None)) if isinstance(content, dict) else "none"
        number = found.removeprefix(FORMAT)
        if found.startswith(FORMAT) and number.isdecimal() and int(number) > VERSION:
            raise ValueError(
                f"a newer version of poise wrote it (format {number}; this version reads {VERSION}): update poise, or "
                "export the checkpoint again with this version"
            )
        if found != f"{FORMAT}{VERSION}":
            raise ValueError(f"its metadata has the format '{found}', not '{FORMAT}{VERSION}': export it again")
        content["preprocess"] = Preprocess(**_tuples(content["preprocess"]))
        content["postprocess"] = _decoded_postprocess(content["postprocess"])
        about = content["model"]
        if not about["num_classes"] == len(about["class_names"]) == len(about["category_ids"]):
            raise ValueError(
                f"its metadata names {len(about['class_names'])} classes and {len(about['category_ids'])} category "
                f"ids, but the model has {about['num_classes']} classes: export it again"
            )
        content["levels"] = tuple((int(stride), int(count)) for stride, count in content["levels"])
        return ExportMetadata(**_tuples(content))


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _encoded_postprocess(post: AnyPostProcess) -> dict[str, object]:
    """Encode a post-processing by its class and settings; functions by their names."""
    _kind(type(post).__name__)
    values = {field.name: getattr(post, field.name) for field in fields(post)}
    named = {name: {"function": _name(value)} if callable(value) else value for name, value in values.items()}
    return {"kind": type(post).__name__, **named}


def _decoded_postprocess(content: dict[str, Any]) -> AnyPostProcess:
    values = {
        name: getattr(postprocess, value["function"]) if isinstance(value, dict) else value
        for name, value in content.items()
        if name != "kind"
    }
    return _kind(content["kind"])(**_tuples(values))


def _kind(name: str) -> type[AnyPostProcess]:
    kind = getattr(postprocess, name, None)
    if kind not in get_args(AnyPostProcess):
        raise ValueError(f"the post-processing '{name}' cannot be stored in a file; it is not in poise.postprocess")
    return cast("type[AnyPostProcess]", kind)


def _name(function: Callable[..., object]) -> str:
    name = getattr(function, "__name__", "")
    if getattr(postprocess, name, None) is not function:
        raise ValueError(f"'{name}' of the post-processing cannot be stored in a file: it is not in poise.postprocess")
    return name
