"""Whole models against the originals: features, every loss term, gradient norms, detections."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from parity import checkpoint, golden, gradient_norms, image, relative, targets

from poise.detectors import DetectionModel
from poise.models import create_model
from poise.published import load_published
from poise.published.keys import rules_of, translate

MODELS = {
    "retinanet_r50": "retinanet_r50_fpn",
    "fcos_r50": "fcos_r50_fpn",
    "atss_r50": "atss_r50_fpn",
    "gfl_r50": "gfl_r50_fpn",
}
SIZE = (160, 192)

pytestmark = pytest.mark.parametrize("stem", MODELS)


@lru_cache(maxsize=1)
def model_of(stem: str) -> DetectionModel:
    model = create_model(MODELS[stem], deterministic=True)
    report = load_published(model, checkpoint(stem))
    assert not report.unused and not report.unfilled, str(report)
    return model


def test_features(stem: str) -> None:
    numbers, model = golden(stem), model_of(stem).eval()
    with torch.no_grad():
        maps = model.network.neck(model.network.backbone(image(*SIZE)))
    for i, level in enumerate(maps):
        torch.testing.assert_close(level[:, ::16, ::3, ::3], numbers[f"feat{i}_sample"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", [0, 1])
def test_losses_and_gradients(stem: str, case: int) -> None:
    numbers, model = golden(stem), model_of(stem).train()
    model.zero_grad()
    losses = model.losses(image(*SIZE), targets(numbers, case))
    wanted = {key: numbers[key].sum() for key in numbers if key.startswith(f"case{case}_") and "loss" in key}
    assert {f"case{case}_{name}" for name in losses} == set(wanted)
    for name, loss in losses.items():
        assert relative(loss.detach(), wanted[f"case{case}_{name}"]) < 1e-4, name
    torch.stack(list(losses.values())).sum().backward()
    parameters, rules = dict(model.network.named_parameters()), rules_of(model.name) or []
    for key, norm in gradient_norms(stem, case).items():
        _, name = translate(key, rules)
        assert name is not None and parameters[name].grad is not None, key
        assert float(parameters[name].grad.norm()) == pytest.approx(norm, rel=1e-3, abs=1e-5), key


def test_detections(stem: str) -> None:
    numbers = golden(stem)
    for i, found in enumerate(model_of(stem).eval().detect(image(*SIZE))):
        boxes, scores, labels = (numbers[f"det{i}_{part}"] for part in ("boxes", "scores", "labels"))
        assert len(found["scores"]) == len(scores)
        apart = (found["boxes"][None] - boxes[:, None]).abs().amax(2)
        same = (found["labels"][None] == labels[:, None]) & ((found["scores"][None] - scores[:, None]).abs() < 1e-4)
        assert torch.where(same, apart, 1e9).amin(1).amax() < 0.05
        assert torch.where(same, apart, 1e9).amin(0).amax() < 0.05
