"""The DETR family against the originals: features, every loss term, gradient norms, detections.

Random weights leave these models less room than dense ones: a decoder whose queries are ordered by score turns a
difference in the seventh digit into another query at another position.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import lru_cache

import pytest
import torch
from support.parity import (
    checkpoint,
    double,
    evaluated,
    float64,
    golden,
    gradient_norms,
    image,
    relative,
    targets,
)
from support.slow import slow_but
from torch import Tensor

from poise.detection_model import DetectionModel
from poise.models import create_model
from poise.published import load_published
from poise.published.keys import rules_of, translate

STEMS = ("deformable_detr_r50", "deformable_detr_twostage_r50", "conditional_detr_r50", "dab_detr_r50", "dino_r50")
COLLABORATIVE = ("co_deformable_detr_r50", "co_dino_5scale_r50", "co_deformable_detr_swin_tiny")
NAMES = {"co_deformable_detr_swin_tiny": "co_deformable_detr_swin_t"}  # where the golden file is called otherwise
QUICK = ("deformable_detr_twostage_r50", "conditional_detr_r50")  # both attentions, both ways to begin queries
LARGE = {"dino_r50", *COLLABORATIVE}
# Two of DINO's proposals have scores that are equal in float32. Their queries trade the contents learned for the two
# ranks, which moves these detections and stirs the others a little; in float64 only the golden numbers' own trades
# (three detections of 600) are left.
TRADING = {"dino_r50": 3}
IN_FLOAT64 = ("dino_r50",)  # losses and gradients: which queries are traded in float32 depends on the processor
# Gradients of sampled locations have kinks where a location crosses a pixel; in float32 they depend on the processor.
KINKS = {"co_dino_5scale_r50": 3e-3}

pytestmark = pytest.mark.parametrize(  # a model is built once
    "stem", slow_but((*STEMS, *COLLABORATIVE), QUICK), scope="module"
)


@lru_cache(maxsize=1)
def model_of(stem: str) -> DetectionModel:
    model = create_model(NAMES.get(stem, stem), deterministic=True)
    report = load_published(model, checkpoint(stem))
    assert not report.unexpected and not report.missing, str(report)
    return model


def pixels_of(stem: str) -> Tensor:
    return image(256, 320) if stem in LARGE else image(160, 192)


@lru_cache(maxsize=1)
def evaluated_once(stem: str) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    return evaluated(model_of(stem), pixels_of(stem))


@pytest.fixture(scope="module", autouse=True)
def _the_last_model_is_not_kept() -> Iterator[None]:
    yield
    evaluated_once.cache_clear()
    model_of.cache_clear()


def test_features(stem: str) -> None:
    numbers, (maps, _) = golden(stem), evaluated_once(stem)
    for i, level in enumerate(maps[: sum(f"feat{i}_sample" in numbers for i in range(5))]):
        torch.testing.assert_close(level[:, ::16, ::3, ::3], numbers[f"feat{i}_sample"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", [0, 1])
def test_losses_and_gradients(stem: str, case: int) -> None:
    model = model_of(stem).train()
    if stem not in IN_FLOAT64:
        compare_losses_and_gradients(stem, model, case, pixels_of(stem), targets(golden(stem), case))
        return
    with float64():
        copied, truth = copy.deepcopy(model).double(), double(targets(golden(stem), case))
        compare_losses_and_gradients(stem, copied, case, pixels_of(stem).double(), truth)


def compare_losses_and_gradients(
    stem: str, model: DetectionModel, case: int, pixels: Tensor, truth: list[dict[str, Tensor]]
) -> None:
    numbers = golden(stem)
    model.zero_grad()
    losses = model.losses(pixels, truth)
    wanted = {key: numbers[key].sum() for key in numbers if key.startswith(f"case{case}_") and "loss" in key}
    assert {f"case{case}_{name}" for name in losses} == set(wanted)
    for name, loss in losses.items():
        assert relative(loss.detach(), wanted[f"case{case}_{name}"]) < (1e-3 if stem in TRADING else 1e-4), name
    torch.stack(list(losses.values())).sum().backward()
    parameters, rules = dict(model.network.named_parameters()), rules_of(model.name) or []
    for key, norm in gradient_norms(stem, case).items():
        _, name = translate(key, rules)
        assert name is not None and parameters[name].grad is not None, key
        tolerance = KINKS[stem] if stem in KINKS and "sampling_offsets" in name else 1e-3
        assert float(parameters[name].grad.norm()) == pytest.approx(norm, rel=tolerance, abs=1e-5), key


def test_detections(stem: str) -> None:
    numbers = golden(stem)
    far, unlike = (0.1, 1e-3) if stem in TRADING else (0.05, 1e-4)
    known = sum(f"det{i}_boxes" in numbers for i in range(2))  # the files of Co-DETR hold the first image alone
    for i, found in enumerate(evaluated_once(stem)[1][:known]):
        boxes, scores, labels = (numbers[f"det{i}_{part}"] for part in ("boxes", "scores", "labels"))
        assert len(found["scores"]) == len(scores)
        apart = (found["boxes"][None] - boxes[:, None]).abs().amax(2)
        same = (found["scores"][None] - scores[:, None]).abs() < unlike
        apart = torch.where(same & (found["labels"][None] == labels[:, None]), apart, torch.inf)
        cut = scores[-1] + 2e-6  # of equal scores at the cut either may be left out
        for alone, score in ((apart.amin(1) > far, scores), (apart.amin(0) > far, found["scores"])):
            assert int((alone & (score > cut)).sum()) <= TRADING.get(stem, 0)
