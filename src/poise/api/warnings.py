"""Warnings of the facade."""

from __future__ import annotations

import warnings


class RandomWeightsWarning(UserWarning):
    """A model with random weights is used for detection."""


class SplitWarning(UserWarning):
    """The data set has no split ``val``: another split is evaluated."""


class ProposalsWarning(UserWarning):
    """Some proposals of a file are not used, or some images have none."""


def warn_random_weights(name: str) -> None:
    """Warn the caller of a method of ``Detector`` that the weights are random."""
    warnings.warn(
        f"'{name}' was built by its name and has random weights: its detections are meaningless. Train it "
        "(Detector.train), load a run (Detector('run folder')), or pass weights= of the original project",
        RandomWeightsWarning,
        stacklevel=3,
    )
