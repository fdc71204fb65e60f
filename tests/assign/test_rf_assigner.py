"""RFAssigner against its formulas, written out one object, prior and ratio at a time."""

from __future__ import annotations

import math
from statistics import mean, stdev

import pytest
import torch
from support.scenes import POINTS, hard_truth, predictions_of, truth_of

from benchmarks.literal_assigners import Image, rf_assigner
from poise.assign.dual_weighting import DualWeighting
from poise.assign.receptive_field import receptive_fields
from poise.assign.rf_assigner import ReceptiveFieldCandidates
from poise.models.assigners import ASSIGNERS
from poise.pairwise import chunks_of_objects
from poise.structures import GroundTruth, QualityPredictions

FIELDS = {8: 91, 16: 267, 32: 427}  # px, RFLA


def slow_candidates(
    rule: ReceptiveFieldCandidates, centers: list[list[float]], strides: list[float], box: list[float]
) -> tuple[list[bool], list[bool]]:
    """Whether each prior is inside the object, and whether it is a further candidate."""
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    inside, table = [], []
    for (x, y), stride in zip(centers, strides, strict=True):
        inside.append(min(x - x1, y - y1, x2 - x, y2 - y) > 0)
        similarities = []
        for ratio in rule.ratios:
            side, squared = FIELDS[int(stride)] * ratio, 0.0
            for w, h in ((width, height), (side, side)):  # both directions
                squared += ((x - (x1 + x2) / 2) / w) ** 2 + ((y - (y1 + y2) / 2) / h) ** 2
                squared += (((side - width) / w) ** 2 + ((side - height) / h) ** 2) / 4
            similarities.append(math.exp(-math.sqrt(squared / 2)))
        table.append([0.0] * len(similarities) if inside[-1] else similarities)
    top = sorted((value for row in table for value in row), reverse=True)[: rule.topk]
    threshold = mean(top) + stdev(top)
    best = [max(row) for row in table]
    further = [value >= threshold and rule.low <= value <= rule.high for value in best]
    return inside, further


@pytest.mark.parametrize(
    "rule", [ReceptiveFieldCandidates(), ReceptiveFieldCandidates((0.5, 0.1), topk=30, low=0.3, high=0.9)]
)
@pytest.mark.parametrize("seed", range(4))
def test_candidates(seed: int, rule: ReceptiveFieldCandidates) -> None:
    truth = hard_truth(seed)
    priors = predictions_of(QualityPredictions, 1, seed, POINTS).priors
    more = 0
    for objects in chunks_of_objects(truth, len(priors.strides)):
        pairs = rule(priors, objects, truth)
        found = pairs.to_dense(pairs.from_objects(torch.ones_like(objects.boxes[..., 0])))[0].bool().tolist()
        for number in range(int(truth.valid.sum())):
            box = truth.boxes[0, number].tolist()
            inside, further = slow_candidates(rule, priors.centers[0].tolist(), priors.strides.tolist(), box)
            assert found[number] == [a or b for a, b in zip(inside, further, strict=True)]
            more += sum(b and not a for a, b in zip(inside, further, strict=True))
    assert more > 0, "the scene has no candidate outside of its object"


@pytest.mark.parametrize("truth", [truth_of([3, 0, 12], 1), hard_truth(2)])
def test_weights_of_the_candidates_are_those_of_dual_weighting(truth: GroundTruth) -> None:
    predictions = predictions_of(QualityPredictions, len(truth.boxes), 5, POINTS)
    found, alone = ASSIGNERS["rf_assigner"].make()(predictions, truth), DualWeighting()(predictions, truth)
    for i, valid in enumerate(truth.valid):
        if not valid.any():
            assert not found.positive[i].any()
            continue
        priors = predictions.priors
        image = Image(
            *(priors.boxes[0], priors.strides, priors.level_sizes, predictions.logits[i], predictions.boxes[i]),
            *(predictions.quality[i], truth.boxes[i][valid], truth.labels[i][valid]),
        )
        positive, negative = rf_assigner(image)
        torch.testing.assert_close(found.positive[i][:, valid], positive, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.negative[i], negative, rtol=1e-4, atol=1e-5)
    assert (found.inside | ~alone.inside).all() and (found.positive[alone.positive > 0] > 0).all()


def test_receptive_fields_of_a_residual_network() -> None:
    """Kernel and stride of each layer of a ResNet-50 with a pyramid: the field grows by (kernel - 1) * jump."""
    fields, field, jump = [], 1, 1
    for kernel, stride, times, is_level in [
        *((7, 2, 1, False), (3, 2, 1, False), (3, 1, 3, True)),
        *((3, 2, 1, False), (3, 1, 3, True), (3, 2, 1, False), (3, 1, 5, True)),
        *((3, 2, 1, False), (3, 1, 2, True), (3, 2, 1, True), (3, 2, 1, True)),
    ]:
        for _ in range(times):
            field, jump = field + (kernel - 1) * jump, jump * stride
        if is_level:
            fields.append(field)
    assert receptive_fields(torch.tensor([4.0, 8, 16, 32, 64, 128])).tolist() == fields
    assert receptive_fields(torch.tensor([2.0, 20, 999])).tolist() == [fields[0], fields[2], fields[-1]]


@pytest.mark.parametrize("options", [{"ratios": ()}, {"ratios": (0.5, 0.0)}, {"topk": 1}, {"low": 0.9}, {"high": 1.5}])
def test_wrong_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"ReceptiveFieldCandidates\(.*topk is at least 2"):
        ReceptiveFieldCandidates(**options)
