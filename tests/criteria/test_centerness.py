"""Centerness of priors next to small objects, whose sides grow to a floor."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from poise.criteria import atss_criterion
from poise.structures import Assignment, GroundTruth, Priors, QualityPredictions


def test_a_floor_gives_priors_next_to_a_small_object_a_box_loss_and_a_target() -> None:
    centers = torch.tensor([[10.0, 10.0], [15.0, 10.0], [50.0, 50.0], [30.0, 30.0]])
    priors = Priors(torch.cat((centers - 4, centers + 4), 1)[None], torch.full((4,), 8.0), (4,))
    logits, quality = torch.zeros(1, 4, 1), torch.zeros(1, 4)
    predictions = QualityPredictions(priors, logits, priors.boxes.clone().requires_grad_(), quality.requires_grad_())
    truth = GroundTruth.collate(
        [{"boxes": torch.tensor([[8.0, 8, 12, 12], [40, 40, 60, 60]]), "labels": torch.tensor([0, 0])}], [(64, 64)]
    )
    positive = torch.tensor([[True, True, True, False]])
    assignment = Assignment(torch.tensor([[0, 0, 1, 0]]), positive, torch.zeros(1, 4, dtype=torch.bool), positive * 1.0)
    wanted = {0.0: [1.0, 0.0, 1.0, 0.0], 16.0: [1.0, math.sqrt(3 / 13), 1.0, 0.0]}  # box 2 to 18: 13 px and 3 px
    for floor, targets in wanted.items():
        criterion = replace(atss_criterion(), floor=floor)
        weights = criterion.targets(predictions, assignment, truth).box_weights[0]
        assert weights.tolist() == pytest.approx([2.0 * one / sum(targets) for one in targets])
        losses = criterion(predictions, assignment, truth)
        [gradient] = torch.autograd.grad(losses["loss_centerness"], quality, retain_graph=True)
        expected = [(0.5 - target) / 3 if row else 0.0 for target, row in zip(targets, positive[0], strict=True)]
        assert gradient[0].tolist() == pytest.approx(expected, abs=1e-6)
        [boxes] = torch.autograd.grad(losses["loss_bbox"], predictions.boxes)
        assert bool(boxes[0, 1].any()) == (floor > 0)
