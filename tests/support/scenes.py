"""Random scenes and hand-made predictions: those of ``poise.testing``."""

from poise.testing.scenes import (
    CLASSES,
    HEIGHT,
    POINTS,
    STRIDES,
    WIDTH,
    hard_truth,
    image_of,
    maps_of,
    predictions_of,
    random_boxes,
    truth_of,
)

__all__ = [
    "CLASSES",
    "HEIGHT",
    "POINTS",
    "STRIDES",
    "WIDTH",
    "hard_truth",
    "image_of",
    "maps_of",
    "predictions_of",
    "random_boxes",
    "truth_of",
]
