"""Calls of the assigners of other libraries, where installed, on the inputs of poise."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from poise.boxes import normalize_boxes
from poise.structures import GroundTruth, Predictions, QueryPredictions

Calls = dict[str, Callable[[], Any]]


def task_aligned(predictions: Predictions, truth: GroundTruth, classes: int) -> Calls:
    """Ultralytics' assigner with the settings of poise, on the same scores and boxes."""
    if importlib.util.find_spec("ultralytics") is None:
        return {}
    from ultralytics.utils.tal import TaskAlignedAssigner

    assigner = TaskAlignedAssigner(topk=13, num_classes=classes, alpha=1.0, beta=6.0)
    centers, valid = predictions.priors.centers[0], truth.valid[..., None]
    labels = truth.labels[..., None]

    def call() -> Any:
        return assigner(predictions.scores(), predictions.boxes, centers, labels, truth.boxes, valid)

    return {"ultralytics": call}


def matcher(predictions: Predictions, truth: GroundTruth) -> Calls:
    """torchvision's matcher as RetinaNet calls it: the IoU of all pairs of an image, then the match."""
    match = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    anchors = predictions.priors.boxes[0]
    objects = [boxes[valid] for boxes, valid in zip(truth.boxes, truth.valid, strict=True)]
    return {"torchvision": lambda: [match(box_iou(boxes, anchors)) for boxes in objects]}


def hungarian(predictions: QueryPredictions, truth: GroundTruth) -> Calls:
    """transformers' matchers: Deformable DETR's has the cost of poise (focal loss), DETR's that of a softmax."""
    if importlib.util.find_spec("transformers") is None:
        return {}
    from transformers.loss.loss_deformable_detr import DeformableDetrHungarianMatcher
    from transformers.loss.loss_for_object_detection import HungarianMatcher

    normalized = normalize_boxes(truth.boxes, truth.sizes)
    targets = [
        {"class_labels": labels[valid], "boxes": boxes[valid]}
        for labels, boxes, valid in zip(truth.labels, normalized, truth.valid, strict=True)
    ]
    outputs: dict[str, Tensor] = {"logits": predictions.logits, "pred_boxes": predictions.normalized_boxes}
    costs = {"class_cost": 2.0, "bbox_cost": 5.0, "giou_cost": 2.0}
    deformable, plain = DeformableDetrHungarianMatcher(**costs), HungarianMatcher(**costs)
    return {
        "deformable detr": lambda: deformable(outputs, targets),
        "detr": lambda: plain(outputs, targets),
    }
