"""Balanced training of object detectors: assigners, samplers and criteria as values that can be exchanged.

``import poise`` is light; each name below is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from poise.version import __version__

if TYPE_CHECKING:
    from poise.api import Detector
    from poise.api.register import (
        register_assigner,
        register_augmentation,
        register_backbone,
        register_criterion,
        register_dataset_format,
        register_head,
        register_metric,
        register_model,
        register_recipe,
        register_sampler,
    )
    from poise.detection_model import DetectionModel
    from poise.losses import VarifocalLoss
    from poise.models import create_model, list_models
    from poise.models.files import load_model as load
    from poise.models.files import save_model as save
    from poise.plugins import require_interface
    from poise.preprocess import Preprocess
    from poise.published import LoadReport, load_published
    from poise.storage import DamagedFile
    from poise.structures import (
        Assignment,
        Batch,
        Detections,
        GroundTruth,
        Match,
        PairWeights,
        Predictions,
        Priors,
        Progress,
        Sample,
        StepOutput,
    )

__all__ = [
    "__version__",
    "create_model",
    "list_models",
    "load",
    "save",
    "load_published",
    "LoadReport",
    "Detector",
    "DetectionModel",
    "Preprocess",
    "DamagedFile",
    "VarifocalLoss",
    "GroundTruth",
    "Batch",
    "Progress",
    "Priors",
    "Predictions",
    "Assignment",
    "PairWeights",
    "Sample",
    "Match",
    "StepOutput",
    "Detections",
    "register_assigner",
    "register_sampler",
    "register_criterion",
    "register_head",
    "register_backbone",
    "register_model",
    "register_recipe",
    "register_dataset_format",
    "register_augmentation",
    "register_metric",
    "require_interface",
]

_HOMES = {
    "create_model": "poise.models",
    "list_models": "poise.models",
    "load": "poise.models.files:load_model",
    "save": "poise.models.files:save_model",
    "load_published": "poise.published",
    "LoadReport": "poise.published",
    "Detector": "poise.api",
    "DetectionModel": "poise.detection_model",
    "Preprocess": "poise.preprocess",
    "DamagedFile": "poise.storage",
    "VarifocalLoss": "poise.losses",
    "require_interface": "poise.plugins",
}
_HOMES |= {name: "poise.api.register" for name in __all__ if name.startswith("register_")}


def __getattr__(name: str) -> object:
    if name not in __all__:
        from poise.suggestions import did_you_mean

        raise AttributeError(f"module 'poise' has no attribute '{name}'{did_you_mean(name, __all__)}")
    module, _, attribute = _HOMES.get(name, "poise.structures").partition(":")
    value = getattr(importlib.import_module(module), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
