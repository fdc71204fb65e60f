"""Rebuilding the originals' checkpoints and inputs, for every test that compares with them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from poise.detection_model import DetectionModel

GOLDEN = Path(__file__).parents[1] / "golden"


def _load_values() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_values", GOLDEN / "values.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


values = _load_values()


def golden(stem: str) -> dict[str, Tensor]:
    """Every numeric array of a golden file as a tensor."""
    with np.load(GOLDEN / f"{stem}.npz", allow_pickle=False) as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive.files if archive[key].dtype.kind in "fiub"}


def gradient_norms(stem: str, case: int) -> dict[str, float]:
    with np.load(GOLDEN / f"{stem}.npz", allow_pickle=False) as archive:
        names, norms = archive[f"case{case}_gradnorm_names"], archive[f"case{case}_gradnorm"]
    return {str(name): float(norm) for name, norm in zip(names, norms, strict=True)}


def checkpoint(stem: str) -> dict[str, Tensor]:
    """The "published" state dict of a golden model."""
    keys = json.loads((GOLDEN / f"{stem}.keys.json").read_text())
    state = {key: torch.tensor(_value(key, tuple(shape))) for key, shape in keys.items()}
    for key in state:
        if key.endswith(".project"):
            state[key] = torch.arange(len(state[key])).float()
    return state


def _value(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of a checkpoint; those of backbones, which many models have alike, are drawn once."""
    return _drawn_once(key, shape) if key.startswith("backbone.") else np.asarray(values.value(key, shape))


@lru_cache(maxsize=400)  # a ResNet-50 has 320 tensors
def _drawn_once(key: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(values.value(key, shape))


def evaluated(model: DetectionModel, pixels: Tensor) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """The neck's outputs and the detections, of one pass in evaluation mode."""
    kept: list[Tensor] = []
    hook = model.network.neck.register_forward_hook(lambda neck, inputs, maps: kept.extend(maps))  # type: ignore[union-attr]
    try:
        return kept, model.eval().detect(pixels)
    finally:
        hook.remove()


def image(height: int, width: int) -> Tensor:
    return torch.from_numpy(values.image("image", (2, 3, height, width)))


def targets(numbers: dict[str, Tensor], case: int) -> list[dict[str, Tensor]]:
    return [{"boxes": numbers[f"case{case}_boxes{i}"], "labels": numbers[f"case{case}_labels{i}"]} for i in range(2)]


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).abs() / wanted.double().abs().clamp(min=1e-6))


@contextmanager
def float64() -> Iterator[None]:
    """Compute in float64, also where a network converts to float32 (``Tensor.float``)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


def double(values: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Targets with boxes in float64."""
    return [{**one, "boxes": one["boxes"].double()} for one in values]
