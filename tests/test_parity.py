"""Whole models against the originals: features, every loss term, gradient norms, detections."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import lru_cache

import pytest
import torch
from support.parity import checkpoint, double, evaluated, golden, gradient_norms, image, relative, targets
from support.slow import slow_if
from torch import Tensor

from poise.detection_model import DetectionModel
from poise.models import create_model
from poise.published import load_published
from poise.published.keys import rules_of, translate

MODELS = {
    "retinanet_r50": "retinanet_r50_fpn",
    "fcos_r50": "fcos_r50_fpn",
    "atss_r50": "atss_r50_fpn",
    "gfl_r50": "gfl_r50_fpn",
    "gfl_r101_dconv": "gfl_r101_dcn_fpn",
    "dw_r50": "dw_r50_fpn",
    "dw_r50_worefine": "dw_r50_fpn_norefine",
    "dw_r101_worefine": "dw_r101_fpn_norefine",
    "dw_r50_dconv": "dw_r50_dcn_fpn",
    "vfnet_r50": "vfnet_r50_fpn",
    "vfnet_x101_64x4d": "vfnet_x101_64x4d_fpn",
    "vfnet_r2_101_dcn": "vfnet_r2_101_dcn_fpn",
    "tood_r50": "tood_r50_fpn",
    "foveabox_r50": "foveabox_r50_fpn",
    "reppoints_r50": "reppoints_r50_fpn",
    "autoassign_r50": "autoassign_r50_fpn",
    "freeanchor_r50": "freeanchor_r50_fpn",
    "paa_r50": "paa_r50_fpn",
    "faster_rcnn_r50": "faster_rcnn_r50_fpn",
    "libra_faster_rcnn_r50": "libra_faster_rcnn_r50_fpn",
    "libra_faster_rcnn_r101": "libra_faster_rcnn_r101_fpn",
    "libra_faster_rcnn_x101": "libra_faster_rcnn_x101_64x4d_fpn",
    "libra_retinanet_r50": "libra_retinanet_r50_fpn",
}
SIZE = (160, 192)
# Features and detection scores of these carry more float32 noise: with random weights the logits of their attention
# reach thousands. A computation in float64 is as far from the golden numbers as ours is.
NOISY = {"libra_faster_rcnn_r101": 20.0, "libra_faster_rcnn_x101": 20.0}
# Gradients through deformable convolutions have kinks where a sampled point crosses a pixel. In float32 these deviate
# by up to 0.002, depending on the processor, in float64 by 0.0002.
IN_FLOAT64 = ("gfl_r101_dconv",)

# Further backbones and variants of a head whose plain form on ResNet-50 is in every run.
VARIANTS = (
    "gfl_r101_dconv", "dw_r50_worefine", "dw_r101_worefine", "dw_r50_dconv", "vfnet_x101_64x4d", "vfnet_r2_101_dcn",
    "libra_faster_rcnn_r101", "libra_faster_rcnn_x101",
)  # fmt: skip

pytestmark = pytest.mark.parametrize("stem", slow_if(MODELS, VARIANTS), scope="module")  # a model is built once


@lru_cache(maxsize=1)
def model_of(stem: str) -> DetectionModel:
    model = create_model(MODELS[stem], deterministic=True)
    report = load_published(model, checkpoint(stem))
    assert not report.unexpected and not report.missing, str(report)
    return model


@lru_cache(maxsize=1)
def evaluated_once(stem: str) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    return evaluated(model_of(stem), image(*SIZE))


@pytest.fixture(scope="module", autouse=True)
def _the_last_model_is_not_kept() -> Iterator[None]:
    yield
    evaluated_once.cache_clear()
    model_of.cache_clear()


def test_features(stem: str) -> None:
    numbers, (maps, _) = golden(stem), evaluated_once(stem)
    if "feat0_sample" not in numbers:
        pytest.skip("these golden numbers hold no features")
    tolerance = 1e-4 * NOISY.get(stem, 1)
    for i, level in enumerate(maps):
        torch.testing.assert_close(level[:, ::16, ::3, ::3], numbers[f"feat{i}_sample"], atol=tolerance, rtol=1e-4)


@pytest.mark.parametrize("case", [0, 1])
def test_losses_and_gradients(stem: str, case: int) -> None:
    numbers, model = golden(stem), model_of(stem).train()
    pixels, truth = image(*SIZE), targets(numbers, case)
    if stem in IN_FLOAT64:
        model, pixels, truth = copy.deepcopy(model).double(), pixels.double(), double(truth)
    model.zero_grad()
    losses = model.losses(pixels, truth)
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
    known = sum(f"det{i}_boxes" in numbers for i in range(2))  # the files of MMDetection 2 hold the first image alone
    for i, found in enumerate(evaluated_once(stem)[1][:known]):
        boxes, scores, labels = (numbers[f"det{i}_{part}"] for part in ("boxes", "scores", "labels"))
        assert len(found["scores"]) == len(scores)
        apart = (found["boxes"][None] - boxes[:, None]).abs().amax(2)
        near = (found["scores"][None] - scores[:, None]).abs() < 1e-4 * NOISY.get(stem, 1)
        same = near & (found["labels"][None] == labels[:, None])
        far = 0.1 if stem in NOISY else 0.05
        assert torch.where(same, apart, 1e9).amin(1).amax() < far
        assert torch.where(same, apart, 1e9).amin(0).amax() < far
