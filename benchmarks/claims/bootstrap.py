"""A paired bootstrap interval of the difference of two schemes' AP, over images and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.claims.matches import Matches
from poise.evaluate.bootstrap import average_precision, interval, mean_of_known, paired_differences

SHOWN, OPPOSITE, NOT_SHOWN, NOT_FINISHED = "shown", "opposite", "not shown", "not finished"


@dataclass(frozen=True)
class Interval:
    """Difference of mean AP in percentage points, its 95 % interval, and the smallest difference that would show."""

    difference: float
    low: float
    high: float
    matches: str = ""  # SHA-256 of the files of matches that it was computed from

    @property
    def smallest(self) -> float:
        """Half the interval's width: a smaller difference cannot be distinguished from 0."""
        return (self.high - self.low) / 2

    @property
    def verdict(self) -> str:
        if self.low > 0:
            return SHOWN
        return OPPOSITE if self.high < 0 else NOT_SHOWN


def paired_interval(better: Sequence[Matches], worse: Sequence[Matches], draws: int = 1000, seed: int = 0) -> Interval:
    """The interval of AP(better) - AP(worse).

    Each draw takes as many seeds and as many images as there are, with replacement, the same ones for both schemes;
    the bounds are the 2.5th and 97.5th percentiles of the draws.

    Args:
        better: the runs of one scheme, a seed each, on the same test images.
        worse: the runs of the other scheme with the same seeds in the same order.
    """
    if len(better) != len(worse) or not better:
        raise ValueError(f"{len(better)} runs against {len(worse)}: every seed needs a run of both schemes")
    images = len(better[0].objects)
    if any(len(run.objects) != images for run in (*better, *worse)):
        raise ValueError("the runs were not measured on the same images")
    whole = np.ones(images)
    gains = [average_precision(b, whole) - average_precision(w, whole) for b, w in zip(better, worse, strict=True)]
    found = interval(float(np.mean(gains)), mean_of_known(paired_differences(worse, better, draws, seed)))
    return Interval(100 * found.difference, 100 * found.low, 100 * found.high)
