"""The built-in models as a table in ``table.json``, for ``poise models`` and early checks of names, without torch.

``python benchmarks/model_table.py --write`` generates the file; a test compares it with the models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from poise.models.notation import parse_part
from poise.plugins import added_names, load_plugins
from poise.suggestions import did_you_mean

FILE = Path(__file__).with_name("table.json")
KINDS = {  # JSON name of an option's type: its Python types, and the type in words
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "str": ((str,), "a word"),
    "None": ((type(None),), "None"),
}
PARTS = ("assigner", "sampler", "criterion", "neck", "class_balance", "one_to_one")
OF_EVERY_MODEL = (*PARTS, "object_balance", "deterministic", "image_size")  # options of ``create_model`` itself


@dataclass(frozen=True)
class ModelRow:
    """A built-in model.

    Attributes:
        family: name of its builder function, such as ``atss``.
        backbone: timm's name of the backbone.
        parameters: number of parameters of the inference in millions, with 80 classes.
        gflops: 10^9 multiply-adds of the inference of one image at ``size``, as papers count "GFLOPs".
        size: shorter and longer side of that image in pixels, as published.
    """

    name: str
    family: str
    backbone: str
    parameters: float
    gflops: float
    size: tuple[int, int]


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


@cache
def model_rows() -> dict[str, ModelRow]:
    """Return the built-in models by name."""
    return {
        name: ModelRow(name, family, backbone, parameters, gflops, (size[0], size[1]))
        for name, (family, backbone, parameters, gflops, size) in _content()["models"].items()
    }


def builder_options(name: str) -> dict[str, list[str]]:
    """Return the options of a built-in model and the kinds of their values; an empty list allows any value."""
    options: dict[str, list[str]] = _content()["options"][model_rows()[name].family]
    return options


def check_early(name: str, options: Mapping[str, object]) -> None:
    """Check options of a built-in model by name and type, without importing it; ``create_model`` checks all of them.

    Raises:
        ValueError: an option is unknown or has a value of another type; a similar name is suggested.
    """
    if name not in model_rows():
        return
    known = builder_options(name)
    for option, value in options.items():
        if option in PARTS and isinstance(value, str):
            _check_part(option, value)
        if option in OF_EVERY_MODEL:
            continue
        if option not in known:
            hint = did_you_mean(option, known)
            raise ValueError(f"'{name}' has no option '{option}'{hint}; it has {', '.join(known)}")
        kinds = known[option]
        if kinds and not any(type(value) in KINDS[kind][0] for kind in kinds):
            wanted = " or ".join(KINDS[kind][1] for kind in kinds)
            raise ValueError(f"{option}={value!r} of '{name}' must be {wanted}")


def _check_part(kind: str, text: str) -> None:
    """Check the name of a part; plug-ins are imported only if poise does not have it."""
    part, known = parse_part(text), _content()["parts"][kind]
    if part.name in known:
        return
    load_plugins()
    known = [*known, *added_names(kind)]
    if part.name not in known:
        raise ValueError(f"no {kind} '{part.name}'{did_you_mean(part.name, known)}; there are {', '.join(known)}")
