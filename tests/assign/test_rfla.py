"""RFLA against its formulas, written out one object and prior at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.scenes import POINTS, STRIDES, hard_truth, predictions_of, truth_of
from torch.distributions import Normal, kl_divergence

from poise.assign import RFLA
from poise.assign.best_anchor import BestAnchor
from poise.nn.layers import retina_anchors
from poise.structures import GroundTruth, Predictions

FIELDS = {8: 91, 16: 267, 32: 427}  # px


def slow_divergence(x: float, y: float, radius: float, box: list[float]) -> float:
    """Of two Gaussians, axis by axis: ln(s / r) + (r^2 + d^2) / 2 s^2 - 1 / 2."""
    x1, y1, x2, y2 = box
    total = 0.0
    for distance, deviation in ((x - (x1 + x2) / 2, (x2 - x1) / 2), (y - (y1 + y2) / 2, (y2 - y1) / 2)):
        total += math.log(deviation / radius) + (radius**2 + distance**2) / (2 * deviation**2) - 0.5
    return total


def slow_rfla(predictions: Predictions, objects: list[list[float]], rule: RFLA) -> list[int]:
    centers, strides = predictions.priors.centers[0].tolist(), predictions.priors.strides.tolist()
    result = [-1] * len(centers)
    for stage, topk in enumerate((rule.topk, 1)):
        best: dict[int, tuple[float, int]] = {}
        for g, box in enumerate(objects):
            values = []
            for (x, y), stride in zip(centers, strides, strict=True):
                radius = FIELDS[int(stride)] / 2 * (rule.decay if stage else 1)
                values.append(1 / (1 + slow_divergence(x, y, radius, box)))
            for n in sorted(range(len(values)), key=lambda n: (-values[n], n))[:topk]:
                if values[n] > best.get(n, (-math.inf, 0))[0]:
                    best[n] = (values[n], g)
        for n, (_, g) in best.items():
            if result[n] < 0:
                result[n] = g
    return result


@pytest.mark.parametrize("rule", [RFLA(), RFLA(topk=1, decay=0.4)])
@pytest.mark.parametrize("truth", [truth_of([2, 0, 12], 0), hard_truth(1)], ids=["random", "hard"])
def test_positives_as_in_the_article(truth: GroundTruth, rule: RFLA) -> None:
    predictions = predictions_of(Predictions, len(truth.boxes), 0, POINTS)
    found = rule(predictions, truth)
    for i, valid in enumerate(truth.valid):
        wanted = slow_rfla(predictions, truth.boxes[i][valid].tolist(), rule)
        assert torch.where(found.positive, found.index, -1)[i].tolist() == wanted


def test_divergence_is_that_of_the_two_gaussians() -> None:
    truth = truth_of([4], 3)
    priors = predictions_of(Predictions, 1, 0, POINTS).priors
    found = RFLA.divergence(priors, truth.boxes, 0.9)[0, :4].double()
    deviations = truth.boxes[0, :4, None, 2:] - truth.boxes[0, :4, None, :2]
    centers = (truth.boxes[0, :4, None, 2:] + truth.boxes[0, :4, None, :2]) / 2
    radius = torch.tensor([FIELDS[int(stride)] / 2 * 0.9 for stride in priors.strides])[:, None].expand(-1, 2)
    fields, objects = Normal(priors.centers[0], radius), Normal(centers, deviations / 2)
    torch.testing.assert_close(found, kl_divergence(fields, objects).sum(2).double(), rtol=1e-4, atol=1e-4)


def test_the_second_stage_adds_to_the_first() -> None:
    """The second stage adds priors that no object has taken, and changes none of the first."""
    truth = truth_of([5, 9], 2)
    predictions = predictions_of(Predictions, 2, 0, POINTS)
    one, two = RFLA(topk=1, decay=1.0)(predictions, truth), RFLA(topk=1, decay=0.4)(predictions, truth)
    assert (two.positive >= one.positive).all() and two.positive.sum() > one.positive.sum()
    assert torch.equal(two.index[one.positive], one.index[one.positive])


def test_every_tiny_object_has_a_positive() -> None:
    """Between all priors, and smaller than every stride."""
    boxes = torch.tensor([[17.0, 17.0, 19.5, 19.5], [60.0, 40.0, 61.0, 41.0]])
    truth = GroundTruth.collate([{"boxes": boxes, "labels": torch.tensor([0, 1])}], [(96, 128)])
    found = RFLA()(predictions_of(Predictions, 1, 0, POINTS), truth)
    assert set(found.index[found.positive].tolist()) == {0, 1}


def test_anchors_of_a_cell_count_as_one_prior() -> None:
    """With nine anchors per cell the same cells are positive, each by its best anchor."""
    truth = truth_of([3, 7], 4)
    cells = RFLA()(predictions_of(Predictions, 2, 0, POINTS), truth)
    anchors = predictions_of(Predictions, 2, 0, replace(retina_anchors(STRIDES), offset=0.5))
    found = BestAnchor(RFLA(anchors=9), 9)(anchors, truth)
    centers = anchors.priors.centers[0].unflatten(0, (-1, 9))
    assert torch.equal(found.positive.unflatten(1, (-1, 9)).sum(2), cells.positive.long()) and cells.positive.any()
    torch.testing.assert_close(centers[:, 4], predictions_of(Predictions, 2, 0, POINTS).priors.centers[0])


@pytest.mark.parametrize("options", [{"topk": 0}, {"decay": 0.0}, {"decay": 1.1}])
def test_wrong_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"RFLA\(.*topk and anchors are at least 1"):
        RFLA(**options)
