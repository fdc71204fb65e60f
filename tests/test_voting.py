"""Score voting after suppression, against a loop over detections and candidates."""

from __future__ import annotations

import math

import pytest
import torch
from support.scenes import predictions_of
from torchvision.ops import box_iou

from poise.boxes import clip
from poise.postprocess import PostProcess, score_voting, topk_priors
from poise.structures import Detections, GeometricPredictions

SIZES = torch.tensor([[96.0, 128.0], [90.0, 70.0]])


@pytest.mark.parametrize("seed", range(3))
def test_as_written_out(seed: int) -> None:
    predictions = predictions_of(GeometricPredictions, 2, seed)
    settings = {"score_threshold": 0.2, "nms_threshold": 0.6, "preselect": topk_priors, "topk": 20, "min_size": -1.0}
    plain, voted = PostProcess(**settings), PostProcess(**settings, voting_sigma=0.025)  # type: ignore[arg-type]
    before, after = plain(predictions, SIZES).unpad(), voted(predictions, SIZES).unpad()
    boxes, scores = clip(predictions.boxes, SIZES), predictions.scores()
    moved = 0
    for i in range(2):
        candidates, start = [], 0
        for size in predictions.priors.level_sizes:
            best = scores[i, start : start + size].amax(1)
            candidates += (best.topk(min(20, size)).indices + start).tolist()
            start += size
        for k, label in enumerate(before[i]["labels"].tolist()):
            total, mean = 0.0, torch.zeros(4)
            for n in candidates:
                overlap = float(box_iou(before[i]["boxes"][k : k + 1], boxes[i, n][None]))
                score = float(scores[i, n, label])
                if overlap > 0.01 and score > 0.2:
                    weight = math.exp(-((1 - overlap) ** 2) / 0.025) * score
                    total, mean = total + weight, mean + weight * boxes[i, n]
            wanted = mean / total if total else before[i]["boxes"][k]  # boxes cut to nothing by the border stay
            torch.testing.assert_close(after[i]["boxes"][k], wanted, atol=1e-3, rtol=1e-4)
            moved += int((wanted - before[i]["boxes"][k]).abs().max() > 0.1)
        assert torch.equal(before[i]["scores"], after[i]["scores"])
        assert torch.equal(before[i]["labels"], after[i]["labels"])
    assert moved > 0


def test_boxes_that_are_not_finite_and_detections_without_votes() -> None:
    found = Detections(
        torch.tensor([[[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]]]),
        torch.ones(1, 2),
        torch.zeros(1, 2, dtype=torch.int64),
        torch.ones(1, 2, dtype=torch.bool),
    )
    boxes = torch.tensor([[[1.0, 1.0, 11.0, 11.0], [0.0, 0.0, torch.inf, 10.0], [0.0, torch.nan, 9.0, 9.0]]])
    after = score_voting(found, boxes, torch.ones(1, 3, 1), 0.025)
    torch.testing.assert_close(after.boxes, torch.stack((boxes[0, 0], found.boxes[0, 1]))[None])
    with pytest.raises(ValueError, match="voting_sigma is not below 0"):
        PostProcess(voting_sigma=-1.0)
