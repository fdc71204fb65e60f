"""FCOS's assignment and losses over realistic predictions: values and gradients of every input."""

from __future__ import annotations

import pytest
import torch
from support.parity import golden, relative
from torch import Tensor

from poise.assign import CenterRegion
from poise.boxes import decode_distances
from poise.criteria import fcos_criterion
from poise.structures import GroundTruth, Priors, QualityPredictions

NUMBERS = golden("vfnet_fcos_loss")
GOLDEN = golden("assigners")
SCENES = sorted({key.split("_")[0] for key in NUMBERS})


def batch(scene: str, part: str) -> Tensor:
    return torch.stack([NUMBERS[f"{scene}_{image}_{part}"] for image in "ab"])


def truth_of(scene: str) -> GroundTruth:
    targets = [{"boxes": NUMBERS[f"{scene}_{i}_gt_boxes"], "labels": NUMBERS[f"{scene}_{i}_gt_labels"]} for i in "ab"]
    return GroundTruth.collate(targets, [(256, 320)] * 2)


def priors_of(points: str) -> Priors:
    centers, stride = GOLDEN[points][:, :2], GOLDEN[points][:, 2:3]
    boxes = torch.cat((centers - stride / 2, centers + stride / 2), 1)[None]
    return Priors(boxes, stride[:, 0], tuple(int(n) for n in GOLDEN["num_level_priors"]))


@pytest.mark.parametrize("scene", SCENES)
def test_fcos(scene: str) -> None:
    priors = priors_of("points_offset_half")
    logits = batch(scene, "logits").requires_grad_()
    quality = batch(scene, "centerness_logits").requires_grad_()
    distances = (batch(scene, "ltrb") / priors.strides[:, None]).requires_grad_()
    boxes = decode_distances(priors.centers, distances * priors.strides[:, None])
    predictions = QualityPredictions(priors, logits, boxes, quality.squeeze(2))
    truth = truth_of(scene)
    losses = fcos_criterion()(predictions, CenterRegion()(predictions, truth), truth)
    for name, loss in losses.items():
        assert relative(loss.detach(), NUMBERS[f"{scene}_fcos_{name}"]) < 1e-4, name
    torch.stack(list(losses.values())).sum().backward()
    for leaf, name in ((logits, "logits"), (distances, "ltrb_over_stride"), (quality, "centerness_logits")):
        wanted = NUMBERS[f"{scene}_fcos_grad_{name}"]
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()) + 1e-12)
