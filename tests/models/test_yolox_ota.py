"""YOLOX's and OTA's losses read literally from their papers, and the switch of YOLOX's last epochs."""

from __future__ import annotations

import math

import pytest
import torch
from support.scenes import CLASSES, POINTS, predictions_of, truth_of
from torchvision.ops import box_iou, generalized_box_iou, sigmoid_focal_loss

from poise.assign import OTA, SimOTA
from poise.boxes import DeltaCoder
from poise.criteria.ota import OTACriterion
from poise.criteria.yolox import YOLOXCriterion
from poise.models import create_model
from poise.structures import Batch, GeometricPredictions, GroundTruth, JointDeltaPredictions, Progress


def entropy(logit: float, target: float) -> float:
    """Binary cross-entropy of one logit."""
    p = 1 / (1 + math.exp(-logit))
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def test_yolox_losses_prior_by_prior() -> None:
    predictions, truth = predictions_of(JointDeltaPredictions, 2, 0, POINTS), truth_of([6, 2], 1)
    assert isinstance(predictions, JointDeltaPredictions)
    found = SimOTA()(predictions, truth)
    sums = dict.fromkeys(("loss_cls", "loss_bbox", "loss_obj", "loss_l1"), 0.0)
    for i, n in torch.cartesian_prod(torch.arange(2), torch.arange(found.index.shape[1])).tolist():
        positive = bool(found.positive[i, n])
        sums["loss_obj"] += entropy(float(predictions.quality[i, n]), float(positive))
        if not positive:
            continue
        box, label = truth.boxes[i, found.index[i, n]], int(truth.labels[i, found.index[i, n]])
        overlap = float(box_iou(predictions.boxes[i, n, None], box[None]))
        for c in range(CLASSES):
            sums["loss_cls"] += entropy(float(predictions.logits[i, n, c]), overlap if c == label else 0.0)
        sums["loss_bbox"] += 5 * (1 - overlap**2)
        x, y = predictions.priors.centers[0, n].tolist()
        stride = float(predictions.priors.strides[n])
        x1, y1, x2, y2 = box.tolist()
        wanted = [((x1 + x2) / 2 - x) / stride, ((y1 + y2) / 2 - y) / stride]
        wanted += [math.log((x2 - x1) / stride), math.log((y2 - y1) / stride)]
        deltas = predictions.deltas[i, n].tolist()
        sums["loss_l1"] += sum(abs(a - b) for a, b in zip(deltas, wanted, strict=True))
    count = int(found.positive.sum())
    assert count > 5
    losses = YOLOXCriterion(DeltaCoder(), offset_weight=1.0)(predictions, found, truth)
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(
        {name: value / count for name, value in sums.items()}, rel=1e-4
    )


def test_ota_losses_prior_by_prior() -> None:
    predictions, truth = predictions_of(GeometricPredictions, 1, 2, POINTS), truth_of([5], 3)
    assert isinstance(predictions, GeometricPredictions)
    found = OTA()(predictions, truth)
    positives = found.positive[0].nonzero().flatten().tolist()
    target = torch.zeros(found.index.shape[1], CLASSES)
    boxes = overlaps = 0.0
    for n in positives:
        g = int(found.index[0, n])
        target[n, int(truth.labels[0, g])] = 1
        pair = predictions.boxes[0, n, None], truth.boxes[0, g, None]
        boxes += 1 - float(generalized_box_iou(*pair))
        overlaps += entropy(float(predictions.quality[0, n]), float(box_iou(*pair)))
    losses = OTACriterion()(predictions, found, truth)
    classes = float(sigmoid_focal_loss(predictions.logits[0], target, reduction="sum"))
    assert len(positives) > 5
    assert float(losses["loss_cls"]) == pytest.approx(classes / len(positives), rel=1e-4)
    assert float(losses["loss_bbox"]) == pytest.approx(2 * boxes / len(positives), rel=1e-4)
    assert float(losses["loss_iou"]) == pytest.approx(0.5 * overlaps / len(positives), rel=1e-4)


def test_the_loss_of_offsets_joins_in_after_its_epoch() -> None:
    torch.manual_seed(0)
    model = create_model("yolox_mnv3s_fpn", 3, channels=16, depth=1, l1_epoch=7).eval()
    target = {"boxes": torch.tensor([[4.0, 6.0, 40.0, 50.0]]), "labels": torch.tensor([1])}
    batch = Batch(torch.randn(1, 3, 64, 64), GroundTruth.collate([target], [(64, 64)]), torch.arange(1))
    before, after = (model.network(batch, Progress(epoch=epoch)).losses for epoch in (6, 7))
    assert set(after) - set(before) == {"loss_l1"}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert set(model.losses(batch.pixels, [target])) == set(after)


def test_borrowed_anchors_do_not_move_yolox_boxes() -> None:
    torch.manual_seed(0)
    own = create_model("yolox_mnv3s_fpn", 3, channels=16, depth=1).eval()
    other = create_model("yolox_mnv3s_fpn", 3, channels=16, depth=1, assigner="atss").eval()
    other.load_state_dict(own.state_dict())
    pixels = torch.randn(1, 3, 64, 64)
    heads = [one.network.branch.head(one.network.neck(one.network.backbone(pixels))) for one in (own, other)]
    assert not torch.equal(heads[0].priors.boxes, heads[1].priors.boxes)
    assert torch.equal(heads[0].boxes, heads[1].boxes)
