"""Open a detector from a model file, a run folder or the name of a model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poise.api.opening import Opened, PathLike, refuse_options
from poise.api.warnings import RandomWeightsWarning
from poise.models import create_model, list_models
from poise.models.catalog import is_model
from poise.models.files import find_model_file, load_model
from poise.published import LoadReport, load_published
from poise.published.demo import demo_weights
from poise.published.sources import ORIGINAL_SUFFIXES, checkpoint_named, is_demo, is_original, locate_weights
from poise.storage import DamagedFile
from poise.storage.hub import is_hub_address
from poise.suggestions import did_you_mean


def open_checkpoint(source: PathLike, weights: PathLike | None, options: Mapping[str, Any]) -> Opened:
    """Open the model that ``source`` names; arguments and errors as of :func:`poise.api.opening.open_model`."""
    if not Path(source).exists() and is_model(str(source)):
        return _from_name(str(source), weights, options)
    refuse_options("a file", weights, options)
    try:
        file = demo_weights() if is_demo(source) else find_model_file(source)
        elsewhere = is_demo(source) or is_hub_address(source)
        return Opened(load_model(file), None if elsewhere else file, True, str(source if elsewhere else file))
    except FileNotFoundError as error:
        hint = did_you_mean(str(source), list_models())
        raise FileNotFoundError(
            f"'{source}' is neither a model file nor a run folder nor a model's name{hint}"
        ) from error
    except DamagedFile as error:
        if Path(source).suffix not in ORIGINAL_SUFFIXES:
            raise
        raise ValueError(
            f"'{source}' is not a model file of poise. If it is a checkpoint of an original project, name its model "
            f"as well: poise.Detector('atss_r50_fpn', weights='{source}'), or 'atss_r50_fpn --weights {source}' on "
            "the command line"
        ) from error


def _from_name(name: str, weights: PathLike | None, options: Mapping[str, Any]) -> Opened:
    if weights is None:
        return Opened(create_model(name, **options), trained=False)
    one, file = checkpoint_named(weights, name), locate_weights(weights, name)
    own = one is None and not is_demo(weights) and not is_hub_address(weights)  # a file of the user
    start = str(file if own else weights)
    if is_original(file):
        needed = {**one.options, **options} if one is not None else options
        model = create_model(name, **{**needed, "backbone_weights": None})  # the checkpoint holds the backbone too
        _warn_missing(load_published(model, file), start, name)
        return Opened(model, file if own else None, True, start)
    refuse_options(f"weights={str(weights)!r}", None, options)
    model = load_model(file)
    if model.name != name:
        raise ValueError(f"weights={str(weights)!r} are of the model '{model.name}', not of '{name}'")
    return Opened(model, file if own else None, True, start)


def _warn_missing(report: LoadReport, source: str, name: str) -> None:
    """Warn of tensors that detection needs and the file does not have: the guide and counts of steps are not needed."""
    lacking = [key for key in report.missing if not key.startswith("guide.") and "num_batches_tracked" not in key]
    if lacking:
        warnings.warn(
            f"{source} lacks {len(lacking)} tensors of '{name}' ({', '.join(lacking[:3])}, …), which are random",
            RandomWeightsWarning,
            stacklevel=5,
        )
