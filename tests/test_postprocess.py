"""From predictions to detections against a literal per-image, per-level, per-class reference."""

from __future__ import annotations

import pytest
import torch
from support.scenes import CLASSES, HEIGHT, WIDTH, predictions_of
from support.similarities import literal as literal_similarity
from torch import Tensor
from torchvision.ops import nms

from poise import create_model
from poise.detection_model import with_postprocess_options
from poise.export import export_model
from poise.postprocess import PostProcess, RegionPostProcess
from poise.similarities import GCD, similarity_named
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
        similarity = similarity_named(rule.nms_similarity)
        if similarity is not None and rule.nms_threshold is not None:
            alike, last = literal_similarity(similarity), []
            for score, _, box in sorted(own, key=lambda entry: -entry[0]):
                if all(alike(box.tolist(), other) <= rule.nms_threshold for *_, other in last):
                    last.append((score, c, box.tolist()))
            result += last
        elif own:
            keep = list(range(len(own)))
            if rule.nms_threshold is not None:
                scores = torch.tensor([score for score, *_ in own])
                keep = nms(torch.stack([box for *_, box in own]), scores, rule.nms_threshold).tolist()
            result += [(own[k][0], c, own[k][2].tolist()) for k in keep]
    return sorted(result, reverse=True)[: rule.max_detections]


@pytest.mark.parametrize(
    "rule",
    [
        PostProcess(0.05, 0.6),
        PostProcess(0.3, 0.4, topk=20, max_detections=7),
        PostProcess(0.3, None, topk=20),
        PostProcess(0.2, 0.6, topk=60, nms_similarity="nwd(scale=16.0)"),
        PostProcess(0.3, 0.2, topk=40, max_detections=9, nms_similarity="simd(m=2, n=3)"),
        PostProcess(0.3, 0.3, topk=40, nms_similarity="gcd"),
    ],
    ids=lambda rule: rule.nms_similarity,
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


@pytest.mark.parametrize("name", ["fcos_r18_fpn", "faster_rcnn_r18_fpn"])
def test_the_similarity_of_a_model_and_of_its_copy(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, 3, nms_similarity="gcd", channels=16)
    posts = [
        [module.postprocess for module in one.network.modules() if hasattr(module, "postprocess")]
        for one in (model, with_postprocess_options(model, nms_similarity="nwd(scale=9)"))
    ]
    assert [[post.nms_similarity for post in own] for own in posts] == [["gcd"], ["nwd(scale=9)"]]
    with pytest.raises(ValueError, match="compares boxes by their IoU; leave out nms"):
        export_model(model, "model.onnx", [torch.zeros(3, 8, 8)], nms=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nwdd", "did you mean 'nwd'"),
        ("nwd(size=3)", "nwd has the options scale"),
        ("nwd(scale=-1)", "must be positive"),
        ("nwd(3)", "given by name"),
        ("nwd(", "write a name"),
    ],
)
def test_wrong_similarities(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RegionPostProcess(nms_similarity=text)


def test_an_image_without_candidates_in_a_batch() -> None:
    predictions = predictions_of(Predictions, 2, 3)
    logits = predictions.logits.clone()
    logits[1] = -100
    found = PostProcess(nms_similarity="gcd")(
        Predictions(predictions.priors, logits, predictions.boxes), torch.tensor([[HEIGHT, WIDTH]] * 2)
    )
    assert found.valid[0].all() and not found.valid[1].any() and similarity_named("gcd()") == GCD()
