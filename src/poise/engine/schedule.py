"""Learning rates as pure functions of the step: nothing is stored, so a resumed run cannot differ.

Each function gives a factor of the base rate. Steps and epochs count from 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from poise.recipes import OptimizerSettings, ScheduleSettings


def base_rate(settings: OptimizerSettings, batch: int) -> float:
    """The rate for ``batch`` images a step: linear scaling from ``lr_batch`` (Goyal et al. 2017), or ``lr`` itself."""
    return settings.lr * batch / settings.lr_batch if settings.lr_batch else settings.lr


def factor(settings: ScheduleSettings, step: int, steps_per_epoch: int) -> float:
    """Factor of the base rate at optimizer step ``step``, warm-up included."""
    total = settings.epochs * steps_per_epoch
    warmup = min(settings.warmup_steps, int(settings.warmup_limit * total))
    return warm_up(step, warmup, settings.warmup_ratio, settings.warmup) * _course(settings, step, steps_per_epoch)


def warm_up(step: int, steps: int, ratio: float, kind: str = "linear") -> float:
    """mmcv 1.x: linear ``1 - (1 - step/steps)(1 - ratio)`` or constant ``ratio`` while ``step < steps``, then 1."""
    if step >= steps:
        return 1.0
    return ratio if kind == "constant" else 1 - (1 - step / steps) * (1 - ratio)


def multistep(epoch: int, milestones: Sequence[int], gamma: float = 0.1) -> float:
    """``gamma`` to the number of milestones reached; milestone 8 takes effect in the ninth epoch (number 8)."""
    return gamma ** sum(epoch >= milestone for milestone in milestones)


def cosine(share: float, final: float = 0.0) -> float:
    """From 1 at ``share`` 0 to ``final`` at 1 along half a cosine."""
    return final + (1 - final) * (1 + math.cos(math.pi * min(1.0, share))) / 2


def flat_cosine(share: float, flat: float, final: float = 0.0) -> float:
    """1 up to the share ``flat``, a cosine to ``final`` from there on."""
    return cosine(max(0.0, share - flat) / (1 - flat), final)


def _course(settings: ScheduleSettings, step: int, steps_per_epoch: int) -> float:
    epoch = step // steps_per_epoch
    share = epoch / settings.epochs if settings.by_epoch else step / (settings.epochs * steps_per_epoch)
    if settings.kind == "multistep":
        return multistep(epoch, settings.milestones, settings.gamma)
    if settings.kind == "cosine":
        return cosine(share, settings.final)
    if settings.kind == "flat_cosine":
        return flat_cosine(share, settings.flat, settings.final)
    return 1.0
