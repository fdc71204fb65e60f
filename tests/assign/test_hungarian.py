"""Hungarian matching against the golden numbers, costs in float64 loops, and every permutation."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.parity import golden
from support.scenes import predictions_of, truth_of

from poise.assign import Hungarian
from poise.boxes import denormalize_boxes, iou_and_giou, normalize_boxes
from poise.structures import GroundTruth, Priors, Progress, QueryPredictions

NUMBERS = golden("assigners")


@pytest.mark.parametrize("scene", range(8))
def test_golden(scene: int) -> None:
    normalized, logits = NUMBERS[f"s{scene}_query_boxes_cxcywh_norm"][None], NUMBERS[f"s{scene}_query_logits"][None]
    boxes = denormalize_boxes(normalized, torch.tensor([[256.0, 320.0]]))
    priors = Priors(boxes, torch.ones(boxes.shape[1]), (boxes.shape[1],))
    target = {"boxes": NUMBERS[f"s{scene}_gt_boxes"], "labels": NUMBERS[f"s{scene}_gt_labels"]}
    truth = GroundTruth.collate([target], [(256, 320)])
    found = Hungarian()(QueryPredictions(priors, logits, boxes, normalized), truth)
    assert torch.equal(
        torch.where(found.positive, found.index + 1, 0)[0], NUMBERS[f"s{scene}_hungarian_gt_inds"].long()
    )


def few(queries: int, counts: list[int], seed: int = 0) -> tuple[QueryPredictions, GroundTruth]:
    predictions = predictions_of(QueryPredictions, len(counts), seed)
    step = predictions.boxes.shape[1] // queries
    index = (torch.arange(queries) * step).expand(len(counts), -1)
    return predictions.take(index), truth_of(counts, seed)


def literal_cost(predictions: QueryPredictions, truth: GroundTruth, image: int, query: int, thing: int) -> float:
    """One cost as written out, in float64."""
    p = 1 / (1 + math.exp(-float(predictions.logits[image, query, truth.labels[image, thing]])))
    positive = -math.log(p + 1e-12) * 0.25 * (1 - p) ** 2
    negative = -math.log(1 - p + 1e-12) * 0.75 * p**2
    height, width = truth.sizes[image].tolist()
    x1, y1, x2, y2 = truth.boxes[image, thing].double().tolist()
    wanted = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    distance = sum(
        abs(a - b) for a, b in zip(predictions.normalized_boxes[image, query].double().tolist(), wanted, strict=True)
    )
    a1, b1, a2, b2 = predictions.boxes[image, query].double().tolist()
    common = max(0.0, min(x2, a2) - max(x1, a1)) * max(0.0, min(y2, b2) - max(y1, b1))
    union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - common
    around = (max(x2, a2) - min(x1, a1)) * (max(y2, b2) - min(y1, b1))
    giou = common / union - (around - union) / around
    return 2 * (positive - negative) + 5 * distance - 2 * giou


def test_the_cheapest_of_all_permutations() -> None:
    predictions, truth = few(5, [3, 4])
    found = Hungarian()(predictions, truth)
    for image, count in enumerate((3, 4)):
        cost = [[literal_cost(predictions, truth, image, q, g) for g in range(count)] for q in range(5)]
        ways = itertools.permutations(range(5), count)
        best = min(ways, key=lambda way: sum(cost[q][g] for g, q in enumerate(way)))
        chosen = {q: int(found.index[image, q]) for q in range(5) if found.positive[image, q]}
        assert chosen == {q: g for g, q in enumerate(best)}


def test_more_objects_than_queries() -> None:
    found = Hungarian()(*few(4, [9, 2]))
    assert found.positive.sum(1).tolist() == [4, 2]
    assert len(set(found.index[0].tolist())) == 4


def test_queries_that_are_not_finite_are_never_matched() -> None:
    predictions, truth = few(6, [5, 5])
    logits, normalized = predictions.logits.clone(), predictions.normalized_boxes.clone()
    logits[0, :3], normalized[1] = torch.nan, torch.inf
    found = Hungarian()(replace(predictions, logits=logits, normalized_boxes=normalized), truth)
    assert found.positive.sum(1).tolist() == [3, 0]
    assert not found.positive[0, :3].any() and bool(found.quality.isfinite().all())


def test_overflowing_logits_are_matched() -> None:
    predictions, truth = few(6, [5, 5])
    huge = replace(predictions, logits=predictions.logits * 1e30)
    assert Hungarian()(huge, truth).positive.sum(1).tolist() == [5, 5]


def test_groups_are_matched_each_on_its_own() -> None:
    predictions, truth = few(12, [3, 2])
    found = Hungarian(groups=3)(predictions, truth)
    for i in range(3):
        part = torch.arange(4 * i, 4 * i + 4).expand(2, -1)
        alone = Hungarian()(predictions.take(part), truth)
        assert torch.equal(found.positive[:, 4 * i : 4 * i + 4], alone.positive)
        assert torch.equal(found.index[:, 4 * i : 4 * i + 4], alone.index)
    with pytest.raises(ValueError, match="equal groups"):
        Hungarian(groups=5)(predictions, truth)


def test_repeats_give_each_object_several_queries() -> None:
    predictions, truth = few(12, [3, 2])
    found = Hungarian(repeats=3)(predictions, truth)
    for image, count in enumerate((3, 2)):
        matched = found.index[image][found.positive[image]]
        assert torch.bincount(matched, minlength=count).tolist() == [3] * count


def test_decoder_layers_are_stacked_along_the_batch() -> None:
    first, truth = few(8, [3, 4])
    second, _ = few(8, [3, 4], seed=5)
    both = replace(
        first,
        logits=torch.cat((first.logits, second.logits)),
        boxes=torch.cat((first.boxes, second.boxes)),
        normalized_boxes=torch.cat((first.normalized_boxes, second.normalized_boxes)),
    )
    found = Hungarian()(both, truth.repeat(2))
    for i, alone in enumerate((Hungarian()(first, truth), Hungarian()(second, truth))):
        assert torch.equal(found.index[2 * i : 2 * i + 2], alone.index)
        assert torch.equal(found.positive[2 * i : 2 * i + 2], alone.positive)


def literal_matching(predictions: QueryPredictions, truth: GroundTruth, rule: Hungarian) -> list[list[int]]:
    """The query of each object by every permutation, with the costs of Stable-DINO or Rank-DETR, in float64."""
    result = []
    for image, valid in enumerate(truth.valid):
        count, queries = int(valid.sum()), range(predictions.boxes.shape[1])
        boxes, things = predictions.boxes[image].double(), truth.boxes[image].double()
        pairs = {(q, g): iou_and_giou(boxes[q], things[g]) for q in queries for g in range(count)}
        highest = max((float(giou) + 1) / 2 for _, giou in pairs.values())
        cost = {}
        for (q, g), (overlap, giou) in pairs.items():
            p = 1 / (1 + math.exp(-float(predictions.logits[image, q, truth.labels[image, g]])))
            if rule.iou_power:
                cost[q, g] = -p * float(overlap) ** rule.iou_power
                continue
            moved = p * ((float(giou) + 1) / 2 / highest) ** rule.position_power
            cost[q, g] = literal_cost(predictions, truth, image, q, g)
            for score, sign in ((p, -1), (moved, 1)):  # the class cost of p gives way to that of p s^beta
                positive = -math.log(score + 1e-12) * 0.25 * (1 - score) ** 2
                negative = -math.log(1 - score + 1e-12) * 0.75 * score**2
                cost[q, g] += sign * 2 * (positive - negative)
        ways = itertools.permutations(queries, count)
        result.append(list(min(ways, key=lambda way: sum(cost[q, g] for g, q in enumerate(way)))))
    return result


@pytest.mark.parametrize("rule", [Hungarian(position_power=0.5), Hungarian(position_power=4.0), Hungarian(iou_power=2)])
def test_modulated_and_high_order_costs(rule: Hungarian) -> None:
    differs = False
    for seed in range(6):
        predictions, truth = few(6, [2, 4], seed)
        near = (
            truth.boxes[:, [0, 1, 2, 3, 0, 1]] + torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(seed)) * 3
        )
        normalized = normalize_boxes(near, truth.sizes)
        predictions = replace(predictions, boxes=near, normalized_boxes=normalized, logits=predictions.logits * 2)
        found, plain = rule(predictions, truth), Hungarian()(predictions, truth)
        for image, wanted in enumerate(literal_matching(predictions, truth, rule)):
            chosen = {int(found.index[image, q]): q for q in found.positive[image].nonzero()[:, 0].tolist()}
            assert [chosen[g] for g in range(len(wanted))] == wanted
        differs |= not torch.equal(found.index, plain.index)
    assert differs


def test_the_high_order_cost_counts_from_its_epoch() -> None:
    rule = Hungarian(iou_power=4.0, iou_power_epoch=9)
    assert rule.at(Progress(epoch=8)) == Hungarian() and rule.at(Progress(epoch=9)) is rule
    assert rule.at(Progress.final()) is rule


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"iou_power": 4.0, "position_power": 0.5}, "position_power=0.5 excludes iou_power=4.0"),
        ({"iou_power_epoch": 9}, "no effect without iou_power"),
        ({"position_power": -1.0}, "cannot be negative"),
    ],
)
def test_costs_that_exclude_each_other_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hungarian(**given)
