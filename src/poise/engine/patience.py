"""Training until the validation metric stops rising: pure functions of the rows of ``results.csv``.

Nothing is stored for it, so a resumed run decides as the interrupted one would have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poise.recipes import Recipe

WINDOW = 0.25  # share of the training so far in which the metric has to rise
DECAY = 0.2  # epochs of the decay as a share of the epochs before it
LEAST_VALIDATIONS = 8  # fewer do not tell a plateau from a slow start


@dataclass(frozen=True)
class Ending:
    """When a training ends: after ``start`` epochs the rate falls linearly until ``epochs`` are done."""

    start: int
    epochs: int
    still_rising: bool  # the limit ``schedule.epochs`` began the decay, not the rule


def ending(rows: Sequence[Mapping[str, float | str]], recipe: Recipe) -> Ending | None:
    """The end of a training by ``train.patience``, or None while it is open.

    The decay begins after the first validated epoch e of at least eight for which the best metric of the epochs in
    (3e/4, e] exceeds the best one up to 3e/4 by less than ``train.patience`` percentage points. It begins at the latest
    when a fifth of the epochs done so far remains of ``schedule.epochs``.

    Args:
        rows: rows of ``results.csv``, one per epoch done; metrics are in [0, 1].
    """
    if not recipe.train.patience:
        return None
    name, limit = f"val/{recipe.evaluate.metric}", recipe.schedule.epochs
    latest = max(1, int(limit / (1 + DECAY)))
    validated: list[tuple[int, float]] = []
    for row in rows:
        epoch = int(row["epoch"])
        if row.get(name) not in (None, ""):
            value = float(row[name])
            validated.append((epoch, value if math.isfinite(value) else 0.0))
            if epoch < latest and _has_stopped(validated, recipe.train.patience / 100):
                return Ending(epoch, min(limit, epoch + math.ceil(DECAY * epoch)), False)
        if epoch >= latest:
            return Ending(latest, limit, not _has_stopped(validated, recipe.train.patience / 100))
    return None


def early_stop(rows: Sequence[Mapping[str, float | str]], recipe: Recipe) -> int | None:
    """The epoch after which ``train.early_stopping`` ends a training, or None while it is open.

    It is the first validated epoch that is at least so many epochs after the best one (the earliest of equal ones).

    Args:
        rows: rows of ``results.csv``, one per epoch done.
    """
    limit, name = recipe.train.early_stopping, f"val/{recipe.evaluate.metric}"
    best, best_epoch = -math.inf, 0
    for row in rows if limit else ():
        if row.get(name) in (None, ""):
            continue
        epoch, value = int(row["epoch"]), float(row[name])
        value = value if math.isfinite(value) else -1.0
        if value > best:
            best, best_epoch = value, epoch
        elif epoch - best_epoch >= limit:
            return epoch
    return None


def last_epoch(rows: Sequence[Mapping[str, float | str]], recipe: Recipe) -> int:
    """The last epoch as far as it is known: ``schedule.epochs``, or less by patience or early stopping."""
    end, stop = ending(rows, recipe), early_stop(rows, recipe)
    return min(recipe.schedule.epochs if end is None else end.epochs, recipe.schedule.epochs if stop is None else stop)


def decay(end: Ending | None, step: int, steps_per_epoch: int) -> float:
    """Factor of the rate at optimizer step ``step``: 1 before the decay, then linear to 0 after the last step."""
    if end is None or step < end.start * steps_per_epoch:
        return 1.0
    return max(0.0, (end.epochs * steps_per_epoch - step) / ((end.epochs - end.start) * steps_per_epoch))


def _has_stopped(validated: Sequence[tuple[int, float]], gain: float) -> bool:
    if len(validated) < LEAST_VALIDATIONS:
        return False
    border = (1 - WINDOW) * validated[-1][0]
    recent = max(value for epoch, value in validated if epoch > border)
    return recent - max(value for epoch, value in validated if epoch <= border) < gain
