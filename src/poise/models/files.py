"""Model files: weights with all that is needed to rebuild the model around them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from poise.nn.backbones.timm_features import Backbone
from poise.storage import DamagedFile, read_safely, save_atomically

if TYPE_CHECKING:
    from poise.detectors.model import DetectionModel

FORMAT = "poise-1"


def describe(model: DetectionModel) -> dict[str, Any]:
    """What rebuilds ``model`` without its weights: name, classes and options."""
    backbone = getattr(model.network, "backbone", None)
    resolved = backbone.resolved_options() if isinstance(backbone, Backbone) else {}
    return {
        "name": model.name,
        "num_classes": model.num_classes,
        "options": {**model.options, **resolved},
        "class_names": list(model.class_names),
        "category_ids": list(model.category_ids),
    }


def save_model(model: DetectionModel, path: str | os.PathLike[str], extra: dict[str, Any] | None = None) -> None:
    """Write a self-describing file that :func:`load_model` reads without any other information.

    Args:
        model: what ``create_model`` returned.
        path: the file, by custom ``*.pt``.
        extra: more entries for the file, such as metrics; the names ``format``, ``model`` and ``weights`` are taken.
    """
    taken = {"format", "model", "weights"} & set(extra or {})
    if taken:
        raise ValueError(f"extra may not hold {sorted(taken)}: these entries describe the model itself")
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    save_atomically(path, {"format": FORMAT, "model": describe(model), "weights": weights, **(extra or {})})


def load_model(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> DetectionModel:
    """Rebuild a model with its class names from a file of :func:`save_model` or from a run folder.

    Args:
        path: a model file, a checkpoint (``best.pt``, ``last.pt``), the same without ``.pt``, or a run folder, of which
            ``best.pt`` is taken and ``last.pt`` where there is none. Averaged weights are taken where a run has them.
        device: where the model is put.

    Returns:
        the model in evaluation mode.

    Raises:
        FileNotFoundError: no such file.
        DamagedFile: truncated, altered, or not a model file.
    """
    file = find_model_file(path)
    payload = read_safely(file)
    if payload.get("format") != FORMAT:
        found = f"its format is {payload.get('format')!r}, not {FORMAT!r}"
        raise DamagedFile(file, found, "Update poise, or save the model again with this version")
    try:
        model = build(payload["model"])
        model.load_state_dict(payload["weights"])
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise DamagedFile(
            file,
            f"it describes no model of this version ({str(error).splitlines()[0][:200] if str(error) else error!r})",
            "Load it with the version of poise that wrote it, or train again",
        ) from error
    return model.to(device).eval()


def build(description: dict[str, Any]) -> DetectionModel:
    """The model that :func:`describe` described, with fresh weights (none are fetched)."""
    from poise.models import create_model  # the package's front door imports this module

    options = {**description["options"], "backbone_weights": None}
    model = create_model(description["name"], num_classes=description["num_classes"], **options)
    model.set_classes(tuple(description["class_names"]), tuple(description["category_ids"]))
    return model


def find_model_file(path: str | os.PathLike[str]) -> Path:
    """The file that ``path`` means (see :func:`load_model`)."""
    path = Path(path)
    if path.is_dir():
        candidates = [path / "best.pt", path / "last.pt", path / "previous.pt"]
    else:
        candidates = [path, path.with_name(path.name + ".pt")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    tried = ", ".join(str(candidate) for candidate in candidates)
    raise FileNotFoundError(f"no model file at {path}: looked for {tried}")
