"""From predictions to detections against a literal per-image, per-level, per-class reference."""

from __future__ import annotations

import pytest
import torch
from support.scenes import CLASSES, HEIGHT, WIDTH, predictions_of
from torch import Tensor
from torchvision.ops import nms

from poise.postprocess import PostProcess
from poise.structures import Predictions, QualityPredictions, map_tensors


def literal(predictions: QualityPredictions, i: int, rule: PostProcess) -> list[tuple[float, int, list[float]]]:
    kept: list[tuple[float, int, Tensor]] = []
    start = 0
    for size in predictions.priors.level_sizes:
        gate = predictions.logits[i, start : start + size].sigmoid()
        pairs = [
            (float(gate[n, c]), n + start, c)
            for n in range(size)
            for c in range(CLASSES)
            if gate[n, c] > rule.score_threshold
        ]
        for value, n, c in sorted(pairs, reverse=True)[: rule.topk]:
            box = predictions.boxes[i, n].clone()
            box[0::2] = box[0::2].clamp(0, WIDTH)
            box[1::2] = box[1::2].clamp(0, HEIGHT)
            if box[2] > box[0] and box[3] > box[1]:
                kept.append((value * float(predictions.quality[i, n].sigmoid()), c, box))
        start += size
    result = []
    for c in range(CLASSES):
        own = [entry for entry in kept if entry[1] == c]
        if own:
            keep = list(range(len(own)))
            if rule.nms_threshold is not None:
                scores = torch.tensor([score for score, *_ in own])
                keep = nms(torch.stack([box for *_, box in own]), scores, rule.nms_threshold).tolist()
            result += [(own[k][0], c, own[k][2].tolist()) for k in keep]
    return sorted(result, reverse=True)[: rule.max_detections]


@pytest.mark.parametrize(
    "rule",
    [PostProcess(0.05, 0.6), PostProcess(0.3, 0.4, topk=20, max_detections=7), PostProcess(0.3, None, topk=20)],
)
def test_against_the_literal_reference(rule: PostProcess) -> None:
    predictions = predictions_of(QualityPredictions, 2, 0)
    assert isinstance(predictions, QualityPredictions)
    sizes = torch.tensor([[HEIGHT, WIDTH]] * 2, dtype=torch.float32)
    for i, found in enumerate(rule(predictions, sizes).unpad()):
        wanted = literal(predictions, i, rule)
        assert found["scores"].tolist() == pytest.approx([score for score, *_ in wanted], abs=1e-6)
        assert found["labels"].tolist() == [label for _, label, _ in wanted]
        torch.testing.assert_close(found["boxes"], torch.tensor([box for *_, box in wanted]))


def test_nothing_confident_gives_empty_results() -> None:
    predictions = map_tensors(predictions_of(Predictions, 2, 1), lambda t: t)
    quiet = Predictions(predictions.priors, predictions.logits - 100, predictions.boxes)
    found = PostProcess()(quiet, torch.tensor([[HEIGHT, WIDTH]] * 2))
    assert not found.valid.any()
    assert [len(image["scores"]) for image in found.unpad()] == [0, 0]


def test_predictions_that_are_not_finite_are_dropped() -> None:
    predictions = predictions_of(QualityPredictions, 1, 2)
    assert isinstance(predictions, QualityPredictions)
    predictions.quality[0, ::3], predictions.boxes[0, 1::3] = torch.nan, torch.nan
    found = PostProcess()(predictions, torch.tensor([[HEIGHT, WIDTH]])).unpad()[0]
    assert len(found["scores"]) and found["scores"].isfinite().all() and found["boxes"].isfinite().all()


@pytest.mark.parametrize(
    "wrong", [{"score_threshold": -0.1}, {"nms_threshold": 1.5}, {"topk": 0}, {"max_detections": 0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        PostProcess(**wrong)  # type: ignore[arg-type]
