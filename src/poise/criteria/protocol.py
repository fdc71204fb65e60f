"""What a criterion is: it weighs and sums elementwise losses into a few named scalars.

Criteria are frozen dataclasses with ``__call__(predictions, assignment, truth) -> dict``. The scalars are weighted
(their sum is minimized), named as the originals name them, finite for finite inputs, and stay attached to the graph
when nothing is positive: places that do not count are masked, never indexed away.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from poise.distributed import normalizer
from poise.structures import Assignment, GroundTruth


class Criterion(Protocol):
    """``(predictions, assignment, truth) -> {name: weighted scalar}``."""

    def __call__(self, predictions: Any, assignment: Any, truth: GroundTruth) -> dict[str, Tensor]: ...


def hard_label(predictions: Any, assignment: Assignment, objects: Tensor) -> float:
    """The label of a positive place is 1, however good its box."""
    return 1.0


def positives(assignment: Assignment) -> Tensor:
    """What most losses are divided by: the positives of the batch, averaged over ranks, at least 1."""
    return normalizer(assignment.positive.sum())


def positives_of_images(assignment: Assignment) -> Tensor:
    """The same where every image counts at least one (RetinaNet, ATSS, GFL)."""
    return normalizer(assignment.positive.sum(1).clamp(min=1).sum())


def masked_sum(loss: Tensor, weight: Tensor) -> Tensor:
    """Sum of ``loss * weight`` over the places where ``weight`` is not zero, whatever stands in the others."""
    return (loss.where(weight != 0, 0.0) * weight).sum()
