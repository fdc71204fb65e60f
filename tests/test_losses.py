"""Elementwise losses and their gradients against the originals' numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support.parity import golden
from torch import Tensor
from torch.nn import functional

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


@pytest.mark.parametrize("scene", range(8))
@pytest.mark.parametrize("weighted", [True, False])
def test_varifocal_module_against_the_originals_numbers(scene: int, weighted: bool) -> None:
    """Its sum, and its gradient once divided by the positives."""
    name = "varifocal" if weighted else "varifocal_notweighted"
    logits, targets = NUMBERS[f"s{scene}_logits"].clone().requires_grad_(), one_hot(scene, NUMBERS[f"s{scene}_scores"])
    total = losses.VarifocalLoss(iou_weighted=weighted, reduction="sum")(logits, targets)
    torch.testing.assert_close(total.detach().double(), NUMBERS[f"s{scene}_{name}_sum"].double(), rtol=1e-4, atol=1e-5)
    losses.VarifocalLoss(iou_weighted=weighted)(logits, targets).backward()
    count = max(1, int((targets > 0).sum()))
    assert logits.grad is not None
    wanted = NUMBERS[f"s{scene}_{name}_sum_grad"] / count
    torch.testing.assert_close(logits.grad, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def yolo_level(side: int, seed: int) -> tuple[Tensor, Tensor]:
    """Raw outputs (B,3,H,W,5+C) of a level of YOLOv5, and the objectness targets of its matched anchors."""
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(2, 3, side, side, 9, generator=generator)
    matched = torch.rand(2, 3, side, side, generator=generator) > 0.97
    return outputs, matched * (0.2 + 0.8 * torch.rand(matched.shape, generator=generator))


def test_varifocal_module_on_a_yolo() -> None:
    """Objectness of all anchors and levels over all positives; classes of all anchors as a model without objectness."""
    levels = [yolo_level(side, side) for side in (16, 8, 4)]
    count = sum(int((wanted > 0).sum()) for _, wanted in levels)
    loss = losses.VarifocalLoss()
    by_level = [loss(outputs[..., 4], wanted, count) for outputs, wanted in levels]
    flat = [torch.cat([part[i].flatten() for part in ((o[..., 4], w) for o, w in levels)]) for i in (0, 1)]
    torch.testing.assert_close(sum(by_level), loss(*flat))
    outputs, wanted = levels[0]
    classes = functional.one_hot(torch.arange(4).repeat(2 * 3 * 64)).reshape(2, 3, 16, 16, 4) * wanted[..., None]
    logits = outputs[..., 5:].clone().requires_grad_()
    loss(logits, classes).backward()
    assert logits.grad is not None
    p, number = logits.detach().sigmoid(), int((wanted > 0).sum())
    raised = (classes > 0) & (p < classes)
    assert raised.any() and bool((logits.grad[raised] < 0).all())  # pushed up to the IoU, as much as it is worth
    torch.testing.assert_close(logits.grad[raised], (classes * (p - classes) / number)[raised])


def circulating(logits: Tensor, targets: Tensor) -> Tensor:
    """What the snippet for YOLOv5 computes: its cross-entropy is a mean before the weights come."""
    weight = targets * (targets > 0) + 0.25 * (logits.sigmoid() - targets).abs() ** 1.5 * (targets <= 0)
    return (functional.binary_cross_entropy_with_logits(logits, targets) * weight).mean()


def gradient(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, targets: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf, targets), leaf)[0]


def test_why_the_mean_must_come_last() -> None:
    """Two positives of different worth, a hard negative, and very many easy ones."""
    logits = torch.cat((torch.logit(torch.tensor([0.15, 0.75, 0.9])), torch.full((5000,), -4.6)))
    targets = torch.cat((torch.tensor([0.3, 0.9, 0.0]), torch.zeros(5000)))
    right, wrong = (gradient(loss, logits, targets) for loss in (losses.VarifocalLoss(), circulating))
    assert float(right[1] / right[0]) == pytest.approx(3)  # as far from its target, and worth three times as much
    assert float(wrong[1] / wrong[0]) == pytest.approx(1, rel=1e-3)  # all elements share one weight
    assert float(right[2]) > 50 * float(right[3:].sum())  # 5000 easy negatives have less weight than a hard one
    assert float(wrong[2]) < 0.1 * float(wrong[3:].sum())  # here they drown it
    mean = functional.binary_cross_entropy_with_logits(logits, targets)
    with pytest.raises(RuntimeError, match="broadcast"):  # as it is written: the product goes into the mean itself
        mean *= targets


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes must be equal"):
        losses.VarifocalLoss()(torch.zeros(2, 3), torch.zeros(2, 1))
