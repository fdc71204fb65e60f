"""VarifocalNet's losses over realistic predictions: values and gradients of every input; its variants."""

from __future__ import annotations

import pytest
import torch
from support.parity import golden, relative
from support.scenes import predictions_of, truth_of
from torch import Tensor

from poise import losses
from poise.assign import ATSS
from poise.boxes import decode_distances
from poise.criteria.varifocal import VarifocalCriterion
from poise.structures import GroundTruth, Predictions, Priors, RefinedPredictions

NUMBERS = golden("vfnet_fcos_loss")
GOLDEN = golden("assigners")
LEVELS = tuple(int(count) for count in GOLDEN["num_level_priors"])
SCENES = sorted({key.split("_")[0] for key in NUMBERS})


def batch(scene: str, part: str) -> Tensor:
    return torch.stack([NUMBERS[f"{scene}_{image}_{part}"] for image in "ab"])


@pytest.mark.parametrize("scene", SCENES)
def test_losses_and_gradients(scene: str) -> None:
    priors = Priors(GOLDEN["anchors"][None], GOLDEN["points_offset_zero"][:, 2], LEVELS)
    logits = batch(scene, "logits").requires_grad_()
    first = (batch(scene, "ltrb") * 1.1).requires_grad_()
    refined = batch(scene, "ltrb").requires_grad_()
    predictions = RefinedPredictions(
        priors, logits, decode_distances(priors.centers, refined), decode_distances(priors.centers, first)
    )
    targets = [{"boxes": NUMBERS[f"{scene}_{i}_gt_boxes"], "labels": NUMBERS[f"{scene}_{i}_gt_labels"]} for i in "ab"]
    truth = GroundTruth.collate(targets, [(256, 320)] * 2)
    terms = VarifocalCriterion()(predictions, ATSS()(predictions, truth), truth)
    for name, loss in terms.items():
        assert relative(loss.detach(), NUMBERS[f"{scene}_vfnet_{name}"]) < 1e-4, name
    torch.stack(list(terms.values())).sum().backward()
    for leaf, name in ((logits, "logits"), (first, "ltrb_initial"), (refined, "ltrb_refined")):
        wanted = NUMBERS[f"{scene}_vfnet_grad_{name}"]
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()) + 1e-12)


def test_without_refinement_there_is_one_box_loss() -> None:
    truth = truth_of([5, 2], 0)
    predictions = predictions_of(Predictions, 2, 1)
    terms = VarifocalCriterion()(predictions, ATSS(5)(predictions, truth), truth)
    assert set(terms) == {"loss_cls", "loss_bbox"}


def test_hard_labels_give_the_plain_focal_loss_without_ignored_priors() -> None:
    truth = truth_of([5], 0)
    narrow = GroundTruth(truth.boxes, truth.labels, truth.valid, truth.crowd, truth.sizes / 2)  # half of it is padding
    predictions = predictions_of(Predictions, 1, 1)
    assignment = ATSS(5)(predictions, narrow)
    assert assignment.ignored.any() and assignment.positive.any()
    found = VarifocalCriterion(losses.focal, hard_labels=True)(predictions, assignment, narrow)["loss_cls"]
    targets = torch.zeros_like(predictions.logits)
    for n in range(targets.shape[1]):
        if assignment.positive[0, n]:
            targets[0, n, truth.labels[0, assignment.index[0, n]]] = 1
    counted = losses.focal(predictions.logits, targets)[~assignment.ignored]
    torch.testing.assert_close(found, counted.sum() / assignment.positive.sum())
