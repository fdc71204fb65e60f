"""Top scores (MS-DETR) against the rule, pair by pair."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.scenes import predictions_of, truth_of

from poise.assign import TopScores
from poise.boxes import iou
from poise.structures import GroundTruth, QueryPredictions


def scene(counts: list[int], seed: int) -> tuple[QueryPredictions, GroundTruth]:
    """Queries of which a third has boxes near those of objects."""
    predictions, truth = predictions_of(QueryPredictions, len(counts), seed), truth_of(counts, seed + 1)
    generator = torch.Generator().manual_seed(seed)
    queries = predictions.boxes.shape[1]
    source = torch.randint(truth.boxes.shape[1], (len(counts), queries, 1), generator=generator).expand(-1, -1, 4)
    near = truth.boxes.gather(1, source) + torch.randn(len(counts), queries, 4, generator=generator) * 4
    boxes = torch.where(torch.rand(len(counts), queries, 1, generator=generator) < 0.3, near, predictions.boxes)
    return replace(predictions, boxes=boxes, logits=predictions.logits * 2), truth


def slow_assignment(rule: TopScores, predictions: QueryPredictions, truth: GroundTruth, image: int) -> dict[int, int]:
    """The object of each positive query of an image."""
    score = {}
    overlap = iou(predictions.boxes[image, None].double(), truth.boxes[image, :, None].double()).tolist()
    for g in truth.valid[image].nonzero()[:, 0].tolist():
        for n, logits in enumerate(predictions.logits[image].tolist()):
            s = 1 / (1 + math.exp(-logits[int(truth.labels[image, g])]))
            score[g, n] = rule.alpha * s + (1 - rule.alpha) * overlap[g][n]
    owner: dict[int, int] = {}
    for g in truth.valid[image].nonzero()[:, 0].tolist():
        best = sorted((n for other, n in score if other == g), key=lambda n, g=g: -score[g, n])[: rule.topk]  # type: ignore[misc]
        for rank, n in enumerate(best):
            if rank and score[g, n] < rule.threshold:
                continue
            if n not in owner or score[g, n] > score[owner[n], n]:
                owner[n] = g
    return owner


@pytest.mark.parametrize("rule", [TopScores(), TopScores(3, 0.7), TopScores(1), TopScores(500, 0.2, 0.8)], ids=repr)
def test_rule(rule: TopScores) -> None:
    several = 0
    for seed in range(3):
        predictions, truth = scene([8, 0, 3], seed)
        found = rule(predictions, truth)
        for image in range(3):
            wanted = slow_assignment(rule, predictions, truth, image)
            positive = found.positive[image].nonzero()[:, 0].tolist()
            assert {n: int(found.index[image, n]) for n in positive} == wanted
            several += len(wanted) - len(set(wanted.values()))
            overlap = iou(predictions.boxes[image], truth.boxes[image, found.index[image]])
            torch.testing.assert_close(found.quality[image], torch.where(found.positive[image], overlap, 0.0))
    assert (several > 0) == (rule.topk > 1)


def test_an_object_without_a_high_score_keeps_its_best_query() -> None:
    predictions, truth = scene([2], 3)
    low = replace(predictions, logits=torch.full_like(predictions.logits, -9.0), boxes=predictions.boxes * 0 + 1)
    assert TopScores()(low, truth).positive.sum() == 1  # both objects prefer the first query
    assert TopScores(threshold=0.0)(low, truth).positive.sum() == 6


def test_values_out_of_range_are_refused() -> None:
    for wrong in ({"topk": 0}, {"threshold": 1.5}, {"alpha": -0.1}):
        with pytest.raises(ValueError, match=r"topk is at least 1, threshold and alpha lie in \[0,1\]"):
            TopScores(**wrong)  # type: ignore[arg-type]
