"""The interface of assigners.

An assigner is a frozen dataclass of its hyper-parameters with ``__call__``. It computes in float32 on padded truth,
without loops over images or objects and without synchronizing host and device. Ties go to the **lowest index** (of the
prior, then of the object) unless its docstring says otherwise. Priors with predictions that are not finite are never
positive.
"""

from __future__ import annotations

from typing import Protocol

from poise.structures import Assignment, GroundTruth, PairWeights, Predictions


class Assigner(Protocol):
    """``(predictions, truth) -> Assignment | PairWeights``."""

    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment | PairWeights: ...
