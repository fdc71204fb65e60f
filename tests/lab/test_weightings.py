"""DW, GFL and VFL on the same predictions, and the curves of the articles, against formulas in plain numbers."""

from __future__ import annotations

import math

import pytest
import torch
from support.scenes import POINTS, predictions_of, truth_of
from torchvision.ops import box_iou, generalized_box_iou

from poise import losses
from poise.lab.curves import box_loss_curves, negative_probability_curves
from poise.lab.weightings import DW_FORMS, ObjectWeights, Weighting, four_anchors, weigh_object
from poise.predictions import Predictions


def test_weights_are_those_of_the_losses_and_of_dws_equations() -> None:
    predictions, truth, number = predictions_of(Predictions, 1, 0, POINTS), truth_of([6], 1), 2
    box, label = truth.boxes[0, number].double(), int(truth.labels[0, number])
    dw, criterion = DW_FORMS["code"]
    weights = weigh_object(predictions, truth, number, dw, criterion=criterion)
    score = predictions.logits[0, :, label].double().sigmoid()
    overlap = box_iou(predictions.boxes[0].double(), box[None])[:, 0]
    torch.testing.assert_close(weights.iou, overlap, rtol=1e-4, atol=1e-6)
    logits = predictions.logits[0, :, label].double()
    for name, loss in (("GFL", losses.quality_focal), ("VFL", losses.varifocal)):
        target = torch.where(weights.positive, weights.iou, 0.0)
        weighted = weights.schemes[name].pairs() * torch.stack((-score.log(), -(1 - score).log()), 1)
        torch.testing.assert_close(weighted.sum(1), loss(logits, target), rtol=1e-4, atol=1e-7)
    centers, half = predictions.priors.centers[0].double(), 2 * 1.11**2
    inside = ((centers > box[:2]) & (centers < box[2:])).all(1)
    prior = (-((centers - (box[:2] + box[2:]) / 2) / predictions.priors.strides[:, None]).square().sum(1) / half).exp()
    giou = generalized_box_iou(predictions.boxes[0].double(), box[None])[:, 0]
    consistency = score * (-5 * (1 - giou)).exp() * inside
    expected = (5 * consistency).exp() * consistency * prior
    expected /= ((3 * consistency).exp() * consistency * prior).sum()
    torch.testing.assert_close(weights.schemes["DW"].positive, expected, rtol=1e-3, atol=1e-6)
    assert bool((weights.schemes["DW"].negative <= score.square() * (1 + 1e-5)).all())


def test_the_four_anchors_are_those_that_only_dw_distinguishes() -> None:
    score = torch.tensor([0.9, 0.9, 0.7, 0.5, 0.1, 0.2, 0.3], dtype=torch.float64)
    iou = torch.tensor([0.9, 0.7, 0.7, 0.7, 0.2, 0.9, 0.95], dtype=torch.float64)
    distance = (score - iou) ** 2
    schemes = {
        "GFL": Weighting(iou * distance, (1 - iou) * distance),
        "VFL": Weighting(iou**2, iou * (1 - iou)),
        "DW": Weighting(score * iou, score**2 * (1 - iou)),
    }
    boxes = torch.zeros(7, 4)
    weights = ObjectWeights(score, iou, boxes, boxes, torch.ones(7), torch.ones(7, dtype=torch.bool), schemes)
    a, b, c, d = four_anchors(weights)
    assert (a, c) == (0, 2) and {b, d} == {1, 3}


@pytest.mark.parametrize("alpha", [0.2, 0.5])
def test_the_gradient_of_balanced_l1_is_equation_7(alpha: float) -> None:
    curve = box_loss_curves((alpha,), 1.5, 1.0)[f"balanced L1, alpha {alpha:g}"]
    b = math.exp(1.5 / alpha) - 1
    expected = [alpha * math.log(b * x + 1) if x < 1 else 1.5 for x in curve.error.tolist()]
    torch.testing.assert_close(curve.gradient, torch.tensor(expected, dtype=torch.float64))


def test_the_probability_of_being_a_negative_is_figure_3() -> None:
    curves = negative_probability_curves((1.0, 3.0), (0.8,))
    for gamma in (1, 3):
        k = 1 / (0.95**gamma - 0.5**gamma)
        expected = [min(max(1 - k * (x**gamma - 0.5**gamma), 0), 1) for x in torch.linspace(0, 1, 201).tolist()]
        torch.testing.assert_close(curves[f"article, gamma1 {gamma}"][1], torch.tensor(expected), atol=1e-5, rtol=0)
    overlap, probability = curves["code, best IoU 0.8"]
    expected = [1.0 if x < 0.5 else (0.8**2 - x**2) / (0.8**2 - 0.5**2) for x in overlap.tolist()]
    torch.testing.assert_close(probability, torch.tensor(expected), atol=1e-5, rtol=0)
