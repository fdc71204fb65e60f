"""Open a detector from a model file, a run folder, an exported file or the name of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch

from poise.detection_model import DetectionModel
from poise.export import is_exported, load_exported

PathLike: TypeAlias = "str | os.PathLike[str]"


@dataclass(frozen=True)
class Opened:
    """A model and where its weights come from."""

    model: DetectionModel
    file: Path | None = None  # of the weights, if the user named a file or run folder
    trained: bool = True  # False: the weights are random
    weights: str | None = None  # from which a training starts: a value of ``model.weights``


def open_model(
    source: PathLike, weights: PathLike | None = None, options: Mapping[str, object] | None = None
) -> Opened:
    """Open the model that ``source`` names.

    Args:
        source: a model file or run folder of poise, an exported file, ``hf://owner/name``, the name of a model, or
            ``demo`` (the network inside the package).
        weights: with a name: ``coco`` (the published checkpoint of the model, which is fetched), the original's name of
            another one, ``demo``, a file of poise or of the original project, a run folder, or ``hf://owner/name``.
        options: with a name: keyword arguments of ``create_model``.

    Raises:
        FileNotFoundError: ``source`` is no file, folder or name of a model; a similar name is suggested.
        ValueError: ``weights`` or ``options`` together with a file, which determines both, or a published checkpoint
            without the name of its model.
    """
    options = options or {}
    if is_exported(source) and not Path(source).is_dir():
        refuse_options("a file", weights, options)
        return Opened(load_exported(source))  # without the code of the networks
    from poise.api.checkpoints import open_checkpoint

    return open_checkpoint(source, weights, options)


def refuse_options(what: str, weights: object, options: Mapping[str, object]) -> None:
    """Raise ``ValueError`` if there are weights or options; ``what`` says what determines them already."""
    given = [*options, *(["weights"] if weights is not None else [])]
    if given:
        raise ValueError(f"{', '.join(given)}: {what} determines these already; give them with a model's name only")


def choose_device(device: str | torch.device) -> torch.device:
    """Return the device; ``"auto"`` selects a GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)
