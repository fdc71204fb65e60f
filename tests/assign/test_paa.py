"""PAA against a slow reference written from the specification, object by object and level by level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from support.hard_scenes import hard_truth, objects_of
from support.scenes import CLASSES, STRIDES, predictions_of
from torchvision.ops import box_iou, generalized_box_iou, sigmoid_focal_loss

from poise.assign.mixture import low_component
from poise.assign.paa import PAA
from poise.nn.layers import AnchorGrid, square_anchors
from poise.structures import GroundTruth, Predictions, QualityPredictions

SQUARES = square_anchors(STRIDES, 4.0)


@dataclass
class Split:
    """The fit of a mixture to sorted numbers and the margin of its closest decision."""

    low: list[bool]
    likelihood: list[float]
    margin: float


def slow_split(numbers: list[float], iterations: int = 100, tolerance: float = 1e-3) -> Split:
    """Expectation maximization in float64 as in scikit-learn."""
    x = np.array(numbers)
    weight, mean, variance = np.array([0.5, 0.5]), np.array([x.min(), x.max()]), np.array([1.0, 1.0])
    previous, margin = -np.inf, np.inf

    def joint() -> np.ndarray:
        squares = (x[:, None] - mean) ** 2 / variance
        return np.log(weight) - 0.5 * (np.log(2 * np.pi) + np.log(variance) + squares)

    for _ in range(iterations):
        density = joint()
        total = np.logaddexp(density[:, 0], density[:, 1])
        share = np.exp(density - total[:, None])
        mass = share.sum(0) + 10 * np.finfo(float).eps
        mean = share.T @ x / mass
        variance = share.T @ x**2 / mass - mean**2 + 1e-6
        weight = mass / len(x)
        change, previous = abs(total.mean() - previous), total.mean()
        margin = min(margin, abs(change - tolerance))
        if change < tolerance:
            break
    density = joint()
    total = np.logaddexp(density[:, 0], density[:, 1])
    margin = min(margin, float(np.abs(density[:, 0] - density[:, 1]).min()))
    return Split((density[:, 0] >= density[:, 1]).tolist(), total.tolist(), margin)


def slow_first(anchors: np.ndarray, boxes: np.ndarray) -> list[int]:
    """Object of each candidate, -1 for none: IoU from 0.1, and every object's best priors, later ones overwriting."""
    table = box_iou(torch.from_numpy(boxes).float(), torch.from_numpy(anchors).float()).numpy()
    owner = []
    for column in table.T:
        best = int(column.argmax()) if len(column) else 0
        owner.append(best if len(column) and column[best] >= np.float32(0.1) else -1)
    for g, row in enumerate(table):
        for n in np.flatnonzero(row == row.max()):
            if row.max() > 0:
                owner[n] = g
    return owner


def slow_paa(predictions: Predictions, truth: GroundTruth, topk: int) -> tuple[list[int], set[int]]:
    """Object of each positive (-1: none), and the objects that a rounding error may decide."""
    boxes, labels = objects_of(truth)
    owner = slow_first(predictions.priors.boxes[0].numpy(), boxes.numpy())
    result, close = [-1] * len(owner), set()
    for g, label in enumerate(labels.tolist()):
        target = torch.zeros(CLASSES, dtype=torch.float64)
        target[label] = 1
        kept, start = [], 0
        for size in predictions.priors.level_sizes:
            level = []
            for n in range(start, start + size):
                if owner[n] == g:
                    logits, box = predictions.logits[0, n].double(), predictions.boxes[0, n].double()
                    class_loss = float(sigmoid_focal_loss(logits, target, 0.25, 2.0, "sum"))
                    level.append((class_loss + 1.3 * (1 - float(generalized_box_iou(box[None], boxes[g : g + 1]))), n))
            kept += sorted(level)[:topk]
            start += size
        if len(kept) < 2:
            continue
        kept.sort()
        split = slow_split([loss for loss, _ in kept])
        if not any(split.low):
            continue
        most = max(value for value, low in zip(split.likelihood, split.low, strict=True) if low)
        behind = [most - value if low else np.inf for value, low in zip(split.likelihood, split.low, strict=True)]
        last = next(i for i, value in enumerate(behind) if value <= 1e-4)
        if split.margin < 1e-5 or any(5e-5 < value < 2e-4 for value in behind):
            close.add(g)
        for i, (_, n) in enumerate(kept):
            if split.low[i] and i <= last:
                result[n] = g
    return result, close


@pytest.mark.parametrize("topk", [3, 9])
@pytest.mark.parametrize("count", [0, 1, 4, 10, 40, 300])
def test_as_written_out(count: int, topk: int) -> None:
    truth = hard_truth(count, count)
    predictions = predictions_of(QualityPredictions, 1, count + topk, SQUARES)
    found = PAA(topk)(predictions, truth)
    wanted, close = slow_paa(predictions, truth, topk)
    codes = torch.where(found.positive, found.index, -1)[0].tolist()
    differing = {max(a, b) for a, b in zip(codes, wanted, strict=True) if a != b}
    assert differing <= close
    assert len(close) <= 1 + count // 20
    assert not found.ignored.any()
    assert count < 10 or max(wanted) >= 0


def test_places_beyond_an_images_padding_are_ignored() -> None:
    target = {"boxes": torch.tensor([[10.0, 10.0, 60.0, 60.0]]), "labels": torch.tensor([1])}
    truth = GroundTruth.collate([target], [(64, 64)])
    found = PAA()(predictions_of(QualityPredictions, 1, 0, SQUARES), truth)
    centers = predictions_of(QualityPredictions, 1, 0, SQUARES).priors.centers[0]
    assert torch.equal(found.ignored[0], (centers >= 64).any(1))
    assert found.positive.any() and not (found.positive & found.ignored).any()


def test_several_anchors_a_cell() -> None:
    grid = AnchorGrid(STRIDES, (3.0, 5.0), (0.5, 2.0))
    predictions = predictions_of(QualityPredictions, 1, 7, grid)
    truth = hard_truth(12, 3)
    wanted, close = slow_paa(predictions, truth, 9)
    codes = torch.where((found := PAA()(predictions, truth)).positive, found.index, -1)[0].tolist()
    assert {max(a, b) for a, b in zip(codes, wanted, strict=True) if a != b} <= close


@pytest.mark.parametrize("seed", range(20))
def test_mixture(seed: int) -> None:
    """Two clusters, one cluster, equal numbers, two numbers; with others that are masked."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(2, 40, 6)
    rows = [np.sort(generator.normal(generator.choice([0, 3, 20], size=n), 1.0)) + 10 for n in counts]
    rows[4], rows[5] = np.full(5, 3.0), np.array([1.0, 4.0])
    values, counted = torch.zeros(6, 45), torch.zeros(6, 45, dtype=torch.bool)
    for i, row in enumerate(rows):
        values[i, : len(row)], counted[i, : len(row)] = torch.from_numpy(row), True
    low, likelihood = low_component(values.where(counted, torch.inf), counted)
    for i, row in enumerate(rows):
        wanted = slow_split(values[i, : len(row)].double().tolist())
        if wanted.margin > 1e-5 or i >= 4:
            assert low[i, : len(row)].tolist() == wanted.low, i
            torch.testing.assert_close(
                likelihood[i, : len(row)].double(), torch.tensor(wanted.likelihood).double(), atol=2e-3, rtol=1e-3
            )


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="topk and iterations are at least 1"):
        PAA(topk=0)
