"""Learning rate schedules as pure functions of the step. They have no state, so a resumed run cannot differ.

Each function returns a factor of the base rate. Steps and epochs count from 0. A step is counted by the share of the
training that is done (:func:`scheduled_step`), so that a run can be resumed with another batch size or other data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from poise.recipes import OptimizerSettings, ScheduleSettings


def base_rate(settings: OptimizerSettings, batch_size: int) -> float:
    """Return the rate for ``batch_size`` images a step: ``lr * batch_size / lr_batch_size`` (linear scaling, Goyal et
    al. 2017), or ``lr`` itself where ``lr_batch_size`` is 0."""
    return settings.lr * batch_size / settings.lr_batch_size if settings.lr_batch_size else settings.lr


def scheduled_step(epoch: int, batch: int, steps_per_epoch: int, accumulate: int) -> int:
    """Return the optimizer steps that epochs and batches done amount to at the present number of steps per epoch.

    This is the number of steps done where neither batch size nor number of images have changed.
    """
    return epoch * steps_per_epoch + batch // accumulate


def factor(settings: ScheduleSettings, step: int, steps_per_epoch: int) -> float:
    """Return the factor of the base rate at optimizer step ``step``, warm-up included."""
    total = settings.epochs * steps_per_epoch
    warmup = min(settings.warmup_steps, int(settings.warmup_max_fraction * total))
    return warm_up(step, warmup, settings.warmup_ratio, settings.warmup) * _decay(settings, step, steps_per_epoch)


def warm_up(step: int, steps: int, ratio: float, kind: str = "linear") -> float:
    """mmcv 1.x: linear ``1 - (1 - step/steps)(1 - ratio)`` or constant ``ratio`` while ``step < steps``, then 1."""
    if step >= steps:
        return 1.0
    return ratio if kind == "constant" else 1 - (1 - step / steps) * (1 - ratio)


def multistep(epoch: int, milestones: Sequence[int], gamma: float = 0.1) -> float:
    """``gamma`` to the number of milestones reached; milestone 8 takes effect in the ninth epoch (number 8)."""
    return gamma ** sum(epoch >= milestone for milestone in milestones)


def cosine(progress: float, min_lr_ratio: float = 0.0) -> float:
    """Half a cosine from 1 at ``progress`` 0 to ``min_lr_ratio`` at ``progress`` 1."""
    return min_lr_ratio + (1 - min_lr_ratio) * (1 + math.cos(math.pi * min(1.0, progress))) / 2


def flat_cosine(progress: float, flat_fraction: float, min_lr_ratio: float = 0.0) -> float:
    """1 while ``progress`` is below ``flat_fraction``, then half a cosine to ``min_lr_ratio``."""
    return cosine(max(0.0, progress - flat_fraction) / (1 - flat_fraction), min_lr_ratio)


def flat_linear(progress: float, flat_fraction: float, min_lr_ratio: float = 0.0) -> float:
    """1 while ``progress`` is below ``flat_fraction``, then a straight line to ``min_lr_ratio``."""
    return 1 - (1 - min_lr_ratio) * min(1.0, max(0.0, progress - flat_fraction) / (1 - flat_fraction))


def _decay(settings: ScheduleSettings, step: int, steps_per_epoch: int) -> float:
    """The factor without warm-up."""
    epoch = step // steps_per_epoch
    progress = epoch / settings.epochs if settings.by_epoch else step / (settings.epochs * steps_per_epoch)
    if settings.kind == "multistep":
        return multistep(epoch, settings.milestones, settings.gamma)
    if settings.kind == "cosine":
        return cosine(progress, settings.min_lr_ratio)
    if settings.kind == "flat_cosine":
        return flat_cosine(progress, settings.flat_fraction, settings.min_lr_ratio)
    if settings.kind == "flat_linear":
        return flat_linear(progress, settings.flat_fraction, settings.min_lr_ratio)
    return 1.0
