"""The varifocal loss on the detectors of VarifocalNet's table 1: a step trains, and teaches what it should."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from poise import losses
from poise.boxes import iou
from poise.losses import normalizer, num_positives, num_positives_clamped
from poise.models import create_model
from poise.recipes import get_recipe
from poise.structures import Assignment, Batch, GroundTruth, Progress

SMALL: dict[str, Any] = {"channels": 16, "depth": 1}
COUNTS = {  # what each divides its class loss by, which stays its own
    "retinanet": num_positives_clamped,
    "atss": num_positives_clamped,
    "reppoints": num_positives_clamped,
    "foveabox": lambda assignment: normalizer(num_positives(assignment) + len(assignment.positive)),
}
TEACHING = pytest.mark.parametrize("family", COUNTS)


def scene() -> tuple[Tensor, GroundTruth]:
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[4.0, 6.0, 40.0, 50.0], [20.0, 10.0, 60.0, 30.0]])
    targets = [{"boxes": boxes, "labels": torch.tensor([0, 2])}, {"boxes": boxes[:1] + 9, "labels": torch.tensor([1])}]
    return pixels, GroundTruth.collate(targets, [(64, 64)] * 2)


@TEACHING
def test_a_step_teaches_the_overlap_of_the_final_box(family: str) -> None:
    torch.manual_seed(0)
    model = create_model(f"{family}_mnv3s_fpn", 3, class_loss="varifocal", **SMALL).train()
    pixels, truth = scene()
    found = model.network(Batch(pixels, truth, torch.arange(2)), Progress.final())
    match = found.matches["dense"]
    predictions, assignment = match.predictions, match.assignment
    assert isinstance(assignment, Assignment) and assignment.positive.any()
    targets = torch.zeros_like(predictions.logits)
    for image, prior in assignment.positive.nonzero().tolist():
        number = int(assignment.index[image, prior])
        overlap = iou(predictions.boxes[image, prior].detach(), truth.boxes[image, number])
        targets[image, prior, int(truth.labels[image, number])] = overlap
    each = losses.varifocal(predictions.logits, targets)[~assignment.ignored]
    torch.testing.assert_close(found.losses["loss_cls"], each.sum() / COUNTS[family](assignment))
    found.total.backward()
    for name, parameter in model.named_parameters():
        assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.isfinite().all()), name


@TEACHING
def test_only_the_class_loss_changes(family: str) -> None:
    pixels, truth = scene()
    terms = []
    for choice in ("focal", "varifocal"):
        torch.manual_seed(0)
        model = create_model(f"{family}_mnv3s_fpn", 3, class_loss=choice, **SMALL).eval()
        terms.append(model.network(Batch(pixels, truth, torch.arange(2)), Progress.final()).losses)
    for name, loss in terms[0].items():
        assert torch.equal(loss, terms[1][name]) == (name != "loss_cls")


@TEACHING
def test_other_names_are_refused(family: str) -> None:
    with pytest.raises(ValueError, match="class_loss='hinge': one of focal, varifocal"):
        create_model(f"{family}_mnv3s_fpn", 3, class_loss="hinge", **SMALL)


@TEACHING
def test_recipe(family: str) -> None:
    middle = "r50_gn_fpn" if family == "reppoints" else "r50_fpn"
    recipe = get_recipe(f"{family}_{middle}_varifocal_1x")
    assert recipe.model.options == {"class_loss": "varifocal"}
    assert recipe.schedule.warmup_ratio == (0.001 if family == "atss" else 0.1)
