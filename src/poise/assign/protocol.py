"""What an assigner is: a value that says which object each place answers to.

Assigners are frozen dataclasses of their hyper-parameters with ``__call__``. They carry no gradient, work in fp32 on
padded truth without loops over images or objects and without host-device synchronization, and break ties by the
**lowest index** (of the place, then of the object) unless they say otherwise.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from poise.structures import Assignment, GroundTruth, PairWeights, Predictions


class Assigner(Protocol):
    """``(predictions, truth) -> Assignment | PairWeights``."""

    reads: ClassVar[str]  # "priors" or "predictions": what it decides from

    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment | PairWeights: ...
