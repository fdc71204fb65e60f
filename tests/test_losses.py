"""Elementwise losses and their gradients against the originals' numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from parity import golden
from torch import Tensor

from poise import losses

NUMBERS = golden("losses")


def one_hot(scene: int, value: Tensor | float) -> Tensor:
    labels = NUMBERS[f"s{scene}_labels"].long()
    targets = torch.zeros(len(labels), 13)
    targets[torch.arange(len(labels)), labels.clamp(0, 12)] = torch.as_tensor(value, dtype=torch.float32)
    return targets[:, :12]  # labels of 12 are background


def classes(function: Callable[..., Tensor], scored: bool) -> Callable[[int], tuple[Tensor, Tensor]]:
    def run(scene: int) -> tuple[Tensor, Tensor]:
        logits = NUMBERS[f"s{scene}_logits"].clone().requires_grad_()
        return function(logits, one_hot(scene, NUMBERS[f"s{scene}_scores"] if scored else 1.0)).sum(), logits

    return run


def pair(function: Callable[..., Tensor], what: str, target: str) -> Callable[[int], tuple[Tensor, Tensor]]:
    def run(scene: int) -> tuple[Tensor, Tensor]:
        prediction = NUMBERS[f"s{scene}_{what}"].clone().requires_grad_()
        return function(prediction, NUMBERS[f"s{scene}_{target}"]).sum(), prediction

    return run


CASES = {
    "varifocal": classes(losses.varifocal, True),
    "varifocal_notweighted": classes(lambda z, q: losses.varifocal(z, q, iou_weighted=False), True),
    "quality_focal": classes(losses.quality_focal, True),
    "focal": classes(losses.focal, False),
    "distribution_focal": pair(losses.distribution_focal, "dist_logits", "dist_targets"),
    "balanced_l1": pair(losses.balanced_l1, "reg_pred", "reg_target"),
    "smooth_l1": pair(lambda p, t: losses.smooth_l1(p, t, 0.11), "reg_pred", "reg_target"),
    "iou_loss": pair(losses.iou, "boxes_pred", "boxes_target"),
    "giou_loss": pair(losses.giou, "boxes_pred", "boxes_target"),
    "diou_loss": pair(losses.diou, "boxes_pred", "boxes_target"),
    "ciou_loss": pair(losses.ciou, "boxes_pred", "boxes_target"),
}


@pytest.mark.parametrize("scene", range(8))
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(name: str, scene: int) -> None:
    value, leaf = CASES[name](scene)
    value.backward()
    assert leaf.grad is not None
    torch.testing.assert_close(value.detach(), NUMBERS[f"s{scene}_{name}_sum"].to(value.dtype), rtol=1e-4, atol=1e-5)
    wanted = NUMBERS[f"s{scene}_{name}_sum_grad"]
    torch.testing.assert_close(leaf.grad, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_balanced_l1_gradient_vanishes_at_zero_error_for_beta_one() -> None:
    error = torch.tensor([0.0, 1e-3, 1.0, 3.0], requires_grad=True)
    losses.balanced_l1(error, torch.zeros(4)).sum().backward()
    assert error.grad is not None
    assert error.grad[0] == 0 and error.grad[3] == pytest.approx(1.5)


def test_varifocal_loss_as_a_module() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 50, 4, generator=generator)
    targets = torch.zeros(2, 50, 4)
    targets[0, :5, 1] = torch.rand(5, generator=generator)
    each = losses.varifocal(logits, targets)
    torch.testing.assert_close(losses.VarifocalLoss()(logits, targets), each.sum() / 5)
    torch.testing.assert_close(losses.VarifocalLoss(reduction="mean")(logits, targets), each.mean())
    assert torch.equal(losses.VarifocalLoss(reduction="none")(logits, targets), each)
    nothing = losses.VarifocalLoss()(logits, torch.zeros_like(targets))
    torch.testing.assert_close(nothing, losses.varifocal(logits, torch.zeros_like(targets)).sum())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert losses.VarifocalLoss()(logits.bfloat16(), targets).dtype == torch.float32
    with pytest.raises(ValueError, match="reduction='average'"):
        losses.VarifocalLoss(reduction="average")
