"""Object balance against a loop over objects, and what it leaves as it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from poise.criteria import atss_criterion
from poise.criteria.object_balance import balance_objects
from poise.criteria.varifocal import VarifocalCriterion
from poise.detectors.parts import dense_branch
from poise.lab.explain import run_step
from poise.models import create_model
from poise.structures import Assignment, GroundTruth, Priors, QualityPredictions


def case(seed: int = 0) -> tuple[QualityPredictions, Assignment, GroundTruth]:
    """Two images with three objects and one, and 24 priors, of which some are positive, some ignored."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    corners = random(4, 2) * 30
    boxes = torch.cat((corners, corners + 10 + random(4, 2) * 20), 1)
    labels = torch.tensor([0, 1, 0, 1])
    parts = ((boxes[:3], labels[:3]), (boxes[3:], labels[3:]))
    truth = GroundTruth.collate([{"boxes": one, "labels": two} for one, two in parts], [(64, 64)] * 2)
    centers = random(24, 2) * 60
    priors = Priors(torch.cat((centers - 4, centers + 4), 1)[None], torch.full((24,), 8.0), (24,))
    index = torch.stack((torch.randint(0, 3, (24,), generator=generator), torch.zeros(24, dtype=torch.int64)))
    positive = random(2, 24) < 0.4
    ignored = ~positive & (random(2, 24) < 0.2)
    predicted = truth.boxes.gather(1, index[..., None].expand(-1, -1, 4)) + random(2, 24, 4) * 3
    predictions = QualityPredictions(priors, random(2, 24, 2) * 4 - 2, predicted, random(2, 24))
    return predictions, Assignment(index, positive, ignored, positive * 1.0), truth


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_weights_are_those_of_a_loop_over_objects(exponent: float) -> None:
    _, assignment, truth = case()
    weights = torch.rand(2, 24, generator=torch.Generator().manual_seed(1))
    wanted = weights.clone()
    for image in range(2):
        for number in range(int(truth.valid[image].sum())):
            own = assignment.positive[image] & (assignment.index[image] == number)
            if own.any():
                wanted[image, own] /= weights[image, own].sum() ** exponent
    wanted[assignment.positive] *= weights[assignment.positive].sum() / wanted[assignment.positive].sum()
    torch.testing.assert_close(balance_objects(weights, assignment, truth, exponent), wanted)


@pytest.mark.parametrize("criterion", [atss_criterion(), VarifocalCriterion()], ids=["atss", "varifocal"])
def test_all_objects_weigh_the_same_and_the_sums_do_not_change(
    criterion: VarifocalCriterion,
) -> None:
    predictions, assignment, truth = case()
    before = criterion.targets(predictions, assignment, truth)
    after = replace(criterion, object_balance=1.0).targets(predictions, assignment, truth)
    torch.testing.assert_close(after.class_targets, before.class_targets)
    torch.testing.assert_close(after.class_weights[~assignment.positive], before.class_weights[~assignment.positive])
    for old, new in ((before.class_weights, after.class_weights), (before.box_weights, after.box_weights)):
        torch.testing.assert_close(new.sum(), old.sum())
        sums = torch.zeros(2, 3).scatter_add(1, assignment.index, new * assignment.positive)
        torch.testing.assert_close(sums[sums > 0], sums[sums > 0].mean().expand(int((sums > 0).sum())))
    with_weights = replace(criterion, object_balance=1.0).weights(predictions, assignment, truth)
    torch.testing.assert_close(with_weights.regression, after.box_weights)


SMALL = {"channels": 16, "depth": 1}
MODELS = ("fcos", "atss", "vfnet", "retinanet", "tood", "gfl", "paa", "ota", "foveabox", "reppoints")


@pytest.mark.parametrize("name", MODELS)
def test_the_option_of_a_model_balances_its_criterion(name: str) -> None:
    """Losses are finite and have gradients, and every object with positives has the same weight in both losses."""
    torch.manual_seed(0)
    own = {key: value for key, value in SMALL.items() if not (name == "reppoints" and key == "channels")}
    model = create_model(f"{name}_r18_fpn", 2, image_size=64, object_balance=1.0, deterministic=True, **own).train()
    boxes = torch.tensor([[4.0, 4, 60, 60], [30, 30, 44, 44], [8, 40, 20, 56]])
    targets = [{"boxes": boxes, "labels": torch.tensor([0, 1, 1])}]
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    step = run_step(model.network, model.batch(images, targets), model.progress)
    match = step.matches["dense"]
    truth = GroundTruth.collate(targets, [(64, 64)])
    weights = match.criterion.targets(match.predictions, match.assignment, truth)
    assert bool(match.assignment.positive.any())
    for one in (weights.class_weights, weights.box_weights):
        sums = torch.zeros(1, 3).scatter_add(1, match.assignment.index, one * match.assignment.positive)
        torch.testing.assert_close(sums[sums > 0], sums[sums > 0].mean().expand(int((sums > 0).sum())))
    torch.stack(list(model.losses(images, targets).values())).sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_a_model_is_rebuilt_with_its_balance_and_wrong_values_are_refused() -> None:
    model = create_model("atss_r18_fpn", 2, object_balance=0.5, **SMALL)
    again = create_model("atss_r18_fpn", 2, **model.options)
    assert dense_branch(again.network).criterion.object_balance == 0.5
    for name, value, message in (
        ("atss_r18_fpn", 1.5, "object_balance=1.5: from 0"),
        ("dw_r18_fpn", 1.0, "DualWeightingCriterion, has no such option"),
        ("faster_rcnn_r18_fpn", 1.0, "is an option of one-stage detectors"),
    ):
        with pytest.raises(ValueError, match=message):
            create_model(name, 2, object_balance=value)
    with pytest.raises(ValueError, match=r"object_balance=-1.0: from 0"):
        create_model("atss_r18_fpn", 2, criterion="atss(object_balance=-1.0)")
    twice = r"given twice: in criterion='atss\(object_balance=0.5\)' and as object_balance=1.0"
    with pytest.raises(ValueError, match=twice):
        create_model("atss_r18_fpn", 2, criterion="atss(object_balance=0.5)", object_balance=1.0)
    predictions, assignment, truth = case()
    with pytest.raises(ValueError, match=r"object_balance=2.0: from 0"):
        replace(atss_criterion(), object_balance=2.0)(predictions, assignment, truth)


def test_images_without_objects_or_positives_have_finite_losses() -> None:
    predictions, assignment, _ = case()
    nothing = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2
    truth = GroundTruth.collate(nothing, [(64, 64)] * 2)
    off = torch.zeros_like(assignment.positive)
    empty = Assignment(torch.zeros_like(assignment.index), off, off, off * 1.0)
    logits = predictions.logits.clone().requires_grad_()
    losses = replace(atss_criterion(), object_balance=1.0)(replace(predictions, logits=logits), empty, truth)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert bool(total.isfinite()) and logits.grad is not None and bool(logits.grad.isfinite().all())
