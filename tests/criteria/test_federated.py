"""The federated loss: which classes it reads, and how often."""

from __future__ import annotations

import pytest
import torch

from poise import losses
from poise.criteria.federated import FederatedLoss
from poise.data.demo import write_demo_data
from poise.engine.model import build_model
from poise.recipes import get_recipe, with_settings

FREQUENCY = torch.tensor([100.0, 1.0, 25.0, 0.0, 4.0, 9.0])


def targets_of(*classes: int) -> torch.Tensor:
    targets = torch.zeros(2, 5, len(FREQUENCY))
    for i, c in enumerate(classes):
        targets[i % 2, i, c] = 1
    return targets


def test_the_loss_of_the_classes_read_is_the_loss_and_that_of_others_nothing() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 5, 6, requires_grad=True), targets_of(1, 3)
    value = FederatedLoss(losses.focal, FREQUENCY, 4)(logits, targets)
    read = value.detach().flatten(0, 1).abs().sum(0) > 0
    assert int(read.sum()) == 4 and read[1] and read[3]
    torch.testing.assert_close(value[..., read], losses.focal(logits, targets)[..., read])
    value.sum().backward()
    assert logits.grad is not None and logits.grad[..., ~read].eq(0).all()


def test_all_present_classes_are_read_even_beyond_the_number() -> None:
    assert FederatedLoss(losses.focal, FREQUENCY, 2).sampled(targets_of(0, 1, 2, 3)).tolist() == [1, 1, 1, 1, 0, 0]
    assert FederatedLoss(losses.focal, FREQUENCY, 50).sampled(targets_of()).tolist() == [1] * 6


def test_others_are_drawn_by_the_root_of_their_images() -> None:
    torch.manual_seed(0)
    loss, draws = FederatedLoss(losses.focal, FREQUENCY, 2), 6000
    counts = sum(loss.sampled(targets_of(0)) for _ in range(draws))
    assert counts[0] == draws and counts.sum() == 2 * draws
    root = FREQUENCY.clamp(min=1).sqrt()[1:]
    torch.testing.assert_close(counts[1:] / draws, root / root.sum(), rtol=0, atol=0.025)


def test_a_recipe_puts_it_into_a_detr_alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    from poise.data import open_data

    data = open_data(write_demo_data(tmp_path_factory.mktemp("federated") / "scenes", train=4, val=2, size=64), "train")
    options = {"backbone": "mobilenetv3_small_100", "channels": 16, "auxiliary_heads": ""}
    small = {"model.backbone_weights": "none", "train.federated_classes": 2, "data.path": "x"}
    recipe = with_settings(get_recipe("co_deformable_detr_r18"), {**small, "model.options": options})
    model, _ = build_model(recipe, data, fresh=True)
    loss = model.network.criterion.class_loss  # type: ignore[union-attr]
    assert isinstance(loss, FederatedLoss) and len(loss.frequency) == len(data.class_names) and loss.classes == 2
    dense = with_settings(get_recipe("atss_r18_fpn"), {**small, "model.options": {"backbone": options["backbone"]}})
    with pytest.raises(ValueError, match="DETR family"):
        build_model(dense, data, fresh=True)
