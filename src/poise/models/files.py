"""Model files: weights, with the name, classes and options that rebuild the model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch

from poise.detection_model.description import ModelDescription, Options, description_of
from poise.detectors.parts import child
from poise.nn.backbones.timm_features import Backbone
from poise.nn.no_random_values import NoRandomValues
from poise.plugins import origin_of
from poise.storage import DamagedFile, load_weights, read_metadata, read_safely, save_atomically, save_safetensors
from poise.storage.hub import MODEL_FILE, fetch_from_hub, is_hub_address

if TYPE_CHECKING:
    from poise.detection_model import DetectionModel

FORMAT = "poise-1"
METADATA = "poise"  # entry of a safetensors header: format and description of the model as JSON


class ModelFile(TypedDict):
    """What a file of a model holds."""

    format: str
    model: ModelDescription
    weights: dict[str, torch.Tensor]


class MissingPackage(ValueError):
    """A model file uses parts of packages that are missing or have changed."""

    def __init__(self, file: Path, packages: Sequence[str], error: Exception) -> None:
        modules = [package.partition(" ")[0] for package in packages]
        super().__init__(
            f"{file}: {error}. The file was written with {', '.join(packages)}, which it cannot load itself: install "
            f"this package, or import it first ('import {modules[0]}' in Python, 'poise --import {modules[0]} …' on "
            "the command line)"
        )


def require_packages(description: ModelDescription, file: Path) -> None:
    """Check that the model of a description has a known name.

    Raises:
        MissingPackage: it has not; the message names the package that has it.
    """
    from poise.models.catalog import is_model  # the catalog builds networks, which this module only describes

    packages = description.get("packages", ())
    if packages and not is_model(description["name"]):
        raise MissingPackage(file, packages, ValueError(f"no model '{description['name']}'"))


def describe(model: DetectionModel) -> ModelDescription:
    """Return the description that rebuilds ``model`` without its weights: name, classes and options."""
    backbone = child(model.network, "backbone")
    resolved = backbone.resolved_options() if isinstance(backbone, Backbone) else {}
    description = description_of(model)
    description["options"].update(resolved)
    description["packages"] = packages_of(description)
    return description


def packages_of(description: ModelDescription) -> list[str]:
    """Return the packages, with versions, whose plug-ins a described model uses."""
    options = description["options"]
    parts = [(kind, options[kind]) for kind in ("assigner", "sampler", "criterion", "backbone") if kind in options]
    names = [(kind, str(text).partition("(")[0]) for kind, text in parts]
    origins = (origin_of(kind, name) for kind, name in [("model", description["name"]), *names])
    return list(dict.fromkeys(str(origin) for origin in origins if origin is not None))


def save_model(model: DetectionModel, path: str | os.PathLike[str], extra: Mapping[str, object] | None = None) -> None:
    """Write a file from which :func:`load_model` rebuilds the model.

    Args:
        model: result of ``create_model``.
        path: the file, usually ``*.pt``; ``*.safetensors`` is written with the description as JSON in its header.
        extra: further entries of the file, such as metrics; ``format``, ``model`` and ``weights`` are reserved.
    """
    taken = {"format", "model", "weights"} & set(extra or {})
    if taken:
        raise ValueError(f"extra must not contain {sorted(taken)}: these entries describe the model itself")
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    description = {"format": FORMAT, "model": describe(model), **(extra or {})}
    if Path(path).suffix == ".safetensors":
        apart = {name: value.contiguous().clone() for name, value in weights.items()}  # modules may have a tensor twice
        save_safetensors(path, apart, {METADATA: json.dumps(description)})
    else:
        save_atomically(path, {**description, "weights": weights})


def load_model(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> DetectionModel:
    """Rebuild a model with its class names from a file of :func:`save_model`, a run folder or the Hugging Face Hub.

    Args:
        path: a model file or checkpoint (``best.pt``, ``last.pt``), with or without ``.pt``, or a run folder with one
            of them (``best.pt`` first). Averaged weights are used where a run has them. A safetensors file whose header
            describes the model (:func:`is_model_file`) is read as well, and ``hf://owner/name[@revision]``.
        device: device of the model.

    Returns:
        the model in evaluation mode.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: the file is truncated, altered, or not a model file.
    """
    file = find_model_file(path)
    payload = _read_safetensors(file) if file.suffix == ".safetensors" else read_safely(file)
    if payload.get("format") != FORMAT:
        found = f"its format is {payload.get('format')!r}, not {FORMAT!r}"
        raise DamagedFile(file, found, "Update poise, or save the model again with this version")
    try:
        with NoRandomValues():
            model = build(payload["model"])
        model.load_state_dict(payload["weights"])
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        description = payload.get("model")
        if packages := description.get("packages") if isinstance(description, dict) else None:
            raise MissingPackage(file, packages, error) from error
        raise DamagedFile(
            file,
            f"it describes no model of this version ({str(error).splitlines()[0][:200] if str(error) else error!r})",
            "Load it with the version of poise that wrote it, or train again",
        ) from error
    return model.to(device).eval()


def is_model_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a safetensors file describes its model, so that :func:`load_model` reads it."""
    return Path(path).suffix == ".safetensors" and Path(path).is_file() and METADATA in read_metadata(path)


def _read_safetensors(file: Path) -> dict[str, Any]:
    """Return what :func:`save_model` would have written."""
    try:
        description = json.loads(read_metadata(file).get(METADATA, "{}"))
    except ValueError as error:
        raise DamagedFile(file, "its header is not readable", "Copy it again from its source") from error
    return {**description, "weights": load_weights(file)} if isinstance(description, dict) else {}


def build(description: ModelDescription) -> DetectionModel:
    """Build the model of a description by :func:`describe`, with random weights."""
    from poise.models import create_model  # the package imports this module

    options: Options = {name: _as_tuple(value) for name, value in description["options"].items()}  # JSON has no tuples
    options["backbone_weights"] = None
    model = create_model(description["name"], num_classes=description["num_classes"], **options)
    model.set_classes(tuple(description["class_names"]), tuple(description["category_ids"]))
    model.class_map = dict(description.get("class_map", {}))
    return model


def _as_tuple(value: object) -> object:
    return tuple(_as_tuple(one) for one in value) if isinstance(value, list) else value


def find_model_file(path: str | os.PathLike[str]) -> Path:
    """Return the model file of ``path`` (see :func:`load_model`)."""
    if is_hub_address(path):
        return fetch_from_hub(str(path))
    path = Path(path)
    if path.is_dir():
        candidates = [path / "best.pt", path / "last.pt", path / "previous.pt", path / MODEL_FILE]
    else:
        candidates = [path, path.with_name(path.name + ".pt")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    tried = ", ".join(str(candidate) for candidate in candidates)
    raise FileNotFoundError(f"no model file at {path}: looked for {tried}")
