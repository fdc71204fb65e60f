"""Learning rates against the published formulas, written out literally."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poise.engine.schedule import base_rate, factor
from poise.recipes import OptimizerSettings, ScheduleSettings, get_recipe


def mmcv_rate(step: int, per_epoch: int, base: float, warmup: int, ratio: float, milestones: tuple[int, ...]) -> float:
    """mmcv 1.x ``StepLrUpdaterHook`` with linear warm-up."""
    regular = base * 0.1 ** len([m for m in milestones if step // per_epoch >= m])
    if step < warmup:
        return regular * (1 - (1 - step / warmup) * (1 - ratio))
    return regular


@pytest.mark.parametrize("name", ["atss_r50_fpn_1x", "fcos_r50_fpn_1x", "gfl_r50_fpn_ms_2x", "retinanet_r50_fpn_2x"])
def test_published_schedules(name: str) -> None:
    recipe = get_recipe(name)
    plan, per_epoch = recipe.schedule, 7330
    for step in [
        0,
        1,
        250,
        499,
        500,
        501,
        *(epoch * per_epoch + d for epoch in range(1, plan.epochs) for d in (-1, 0, 1)),
    ]:
        expected = mmcv_rate(step, per_epoch, 0.01, 500, plan.warmup_ratio, plan.milestones)
        assert base_rate(recipe.optimizer, 16) * factor(plan, step, per_epoch) == pytest.approx(expected, rel=1e-12)


def test_first_and_last_step_of_a_warm_up() -> None:
    plan = ScheduleSettings(12, warmup_steps=500, warmup_ratio=0.001)
    assert factor(plan, 0, 1000) == pytest.approx(0.001)
    assert factor(plan, 499, 1000) == pytest.approx(1 - (1 / 500) * 0.999)
    assert factor(plan, 500, 1000) == 1


def test_constant_warm_up() -> None:
    plan = ScheduleSettings(12, warmup="constant", warmup_ratio=1 / 3, warmup_steps=5)
    assert [factor(plan, step, 100) for step in (0, 4, 5)] == pytest.approx([1 / 3, 1 / 3, 1])


def test_nanodet_cosine_per_epoch() -> None:
    """lr 1e-3 to 5e-5 over 300 epochs, closed form of PyTorch's own scheduler."""
    plan = ScheduleSettings(300, "cosine", (), min_lr_ratio=0.05, by_epoch=True, warmup_steps=0)
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.AdamW([parameter], 1e-3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300, eta_min=5e-5)
    for epoch in range(300):
        for step in (epoch * 10, epoch * 10 + 9):
            assert 1e-3 * factor(plan, step, 10) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        theirs.step()


def test_cosine_by_step_and_flat_cosine() -> None:
    plan = ScheduleSettings(10, "cosine", (), min_lr_ratio=0.1, warmup_steps=0)
    assert factor(plan, 25, 10) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 0.25)) / 2)
    plan = ScheduleSettings(10, "flat_cosine", (), flat_fraction=0.6, warmup_steps=0)
    assert factor(plan, 59, 10) == 1
    assert factor(plan, 80, 10) == pytest.approx(0.5)
    plan = ScheduleSettings(12, "flat_linear", (), flat_fraction=5 / 6, warmup_steps=0)
    assert [factor(plan, step, 10) for step in (99, 100, 110, 119)] == pytest.approx([1, 1, 0.5, 0.05])


@given(step=st.integers(0, 999), warmup=st.integers(0, 2000), limit=st.floats(0, 1))
def test_every_factor_lies_between_0_and_1(step: int, warmup: int, limit: float) -> None:
    for kind in ("multistep", "cosine", "flat_cosine", "flat_linear", "constant"):
        plan = ScheduleSettings(10, kind, (5, 8), warmup_steps=warmup, warmup_max_fraction=limit)  # type: ignore[arg-type]
        assert 0 <= factor(plan, step, 100) <= 1
        if step >= limit * 1000:
            assert factor(plan, step, 100) == factor(ScheduleSettings(10, kind, (5, 8), warmup_steps=0), step, 100)  # type: ignore[arg-type]


def test_linear_scaling() -> None:
    assert base_rate(OptimizerSettings(lr=0.01, lr_batch_size=16), 4) == pytest.approx(0.0025)
    assert base_rate(OptimizerSettings(lr=0.01, lr_batch_size=0), 4) == 0.01
