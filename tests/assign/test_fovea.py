"""Fovea against the original's way: objects painted on each level's map, large ones first."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.scenes import HEIGHT, POINTS, STRIDES, WIDTH, hard_truth, predictions_of, truth_of

from poise.assign import Fovea
from poise.structures import Predictions

RANGES = ((1, 24), (16, 48), (32, 200))


def painted(boxes: np.ndarray, sigma: float) -> np.ndarray:
    """Object of each prior, -1 for none."""
    levels = []
    for stride, (low, high) in zip(STRIDES, RANGES, strict=True):
        rows, columns = HEIGHT // stride, WIDTH // stride
        level = np.full((rows, columns), -1)
        sizes = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
        for i in np.argsort(-sizes, kind="stable"):
            if not low <= sizes[i] <= high:
                continue
            x1, y1, x2, y2 = boxes[i].astype(np.float32) / np.float32(stride)
            across, down = [], []
            for start, end, cells, bounds in ((x1, x2, columns, across), (y1, y2, rows, down)):
                half = 0.5 * (end - start)
                bounds.append(min(max(math.ceil(start + (1 - sigma) * half - 0.5), 0), cells - 1))
                bounds.append(min(max(math.floor(start + (1 + sigma) * half - 0.5), 0), cells - 1))
            level[down[0] : down[1] + 1, across[0] : across[1] + 1] = i
        levels.append(level.ravel())
    return np.concatenate(levels)


@pytest.mark.parametrize("sigma", [0.4, 0.7, 1.0])
@pytest.mark.parametrize("count", [1, 5, 40])
def test_equals_painting(sigma: float, count: int) -> None:
    truth = truth_of([count], seed=count)
    found = Fovea(sigma, RANGES)(predictions_of(Predictions, 1, 0, POINTS), truth)
    wanted = torch.from_numpy(painted(truth.boxes[0, :count].numpy(), sigma))
    assert torch.equal(torch.where(found.positive[0], found.index[0], -1), wanted)
    assert sigma < 1 or (wanted >= 0).any()


@pytest.mark.parametrize("seed", range(3))
def test_hard_scenes(seed: int) -> None:
    truth = hard_truth(seed)
    found = Fovea(0.4, RANGES)(predictions_of(Predictions, 1, 0, POINTS), truth)
    boxes = truth.boxes[0][truth.valid[0]].numpy()
    wanted = torch.from_numpy(painted(boxes[::-1], 0.4))  # of equal objects the first is painted last
    wanted = torch.where(wanted >= 0, len(boxes) - 1 - wanted, -1)
    assert torch.equal(torch.where(found.positive[0], found.index[0], -1), wanted)


def test_wrong_settings_are_explained() -> None:
    with pytest.raises(ValueError, match="sigma"):
        Fovea(0.0)
    with pytest.raises(ValueError, match="serves 1 levels, the head has 3"):
        Fovea(ranges=((1, 64),))(predictions_of(Predictions, 1, 0), truth_of([1], 0))
