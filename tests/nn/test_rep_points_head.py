"""RepPoints' head: boxes from points, which gradients are damped, and the published names of its forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.parity import checkpoint
from torch import Tensor
from torchvision.ops import deform_conv2d

from poise.models import create_model
from poise.nn.heads.rep_points import RepPointsHead
from poise.nn.layers import point_grid
from poise.published import load_published

STRIDES = (8, 16)


def head_of(**options: Any) -> RepPointsHead:
    torch.manual_seed(0)
    head = RepPointsHead(8, 3, point_grid(STRIDES, 0.0), depth=1, **options)
    for conv in (head.initial_points, head.refined_points):  # points far apart, as after training
        torch.nn.init.normal_(conv.weight, std=1.0)
        torch.nn.init.normal_(conv.bias, std=2.0)
    torch.nn.init.constant_(head.transfer, 0.3)
    return head


def maps() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 8, side, side + 1, generator=generator) for side in (6, 3)]


def box_as_written(offsets: list[float], x: float, y: float, stride: int, factors: tuple[float, float]) -> list[float]:
    """Mean and unbiased deviation of nine points given as y, x offsets in cells."""
    rows, columns = [y + stride * o for o in offsets[0::2]], [x + stride * o for o in offsets[1::2]]
    sides = []
    for values, factor in ((columns, factors[0]), (rows, factors[1])):
        mean = sum(values) / 9
        half = math.sqrt(sum((value - mean) ** 2 for value in values) / 8) * factor
        sides.append((mean - half, mean + half))
    return [sides[0][0], sides[1][0], sides[0][1], sides[1][1]]


def test_boxes_are_the_moments_of_their_points() -> None:
    head, features = head_of(), maps()
    with torch.no_grad():
        head.transfer.copy_(torch.tensor([0.3, -0.2]))
        predictions = head(features)
        prior = 0
        for level, stride in zip(features, STRIDES, strict=True):
            _, (second,), (first,) = head._points([level])
            for row in range(level.shape[2]):
                for column in range(level.shape[3]):
                    for found, points in ((predictions.initial_boxes, first), (predictions.boxes, second)):
                        offsets = points[1, :, row, column].tolist()
                        factors = (math.exp(0.3), math.exp(-0.2))
                        wanted = box_as_written(offsets, column * stride, row * stride, stride, factors)
                        torch.testing.assert_close(found[1, prior], torch.tensor(wanted), rtol=1e-4, atol=1e-3)
                    prior += 1
        assert prior == predictions.boxes.shape[1]


def test_features_are_read_at_the_initial_points() -> None:
    """A tap's offset is counted from where the plain kernel would put it."""
    head, level = head_of(), maps()[0]
    with torch.no_grad():
        _, (second,), (first,) = head._points([level])
        taps = torch.tensor([[y, x] for y in (-1.0, 0.0, 1.0) for x in (-1.0, 0.0, 1.0)]).reshape(1, 18, 1, 1)
        read = deform_conv2d(head.regression(level), first - taps, head.refined_conv.weight, padding=1)
        torch.testing.assert_close(second, first + head.refined_points(read.relu()))


@pytest.mark.parametrize("part", [0.1, 0.5])
def test_the_gradient_of_the_offsets_is_scaled(part: float) -> None:
    grads = []
    for gradient in (part, 1.0):
        head = head_of(gradient_scale=gradient)
        head(maps()).logits.sum().backward()
        grads.append(head.initial_points.weight.grad)
    torch.testing.assert_close(grads[0], grads[1] * part, rtol=1e-4, atol=1e-5)
    assert float(grads[1].abs().sum()) > 0


def test_refined_boxes_reach_the_initial_points_through_the_offsets_alone() -> None:
    head = head_of(gradient_scale=0.0)
    head(maps()).boxes.sum().backward()
    assert not head.initial_points.weight.grad.any()


def test_the_gradient_of_the_factors_is_scaled() -> None:
    grads = []
    for part in (0.01, 1.0):
        head = head_of(transfer_gradient_scale=part)
        head(maps()).boxes[..., 2].sum().backward()
        grads.append(head.transfer.grad)
    torch.testing.assert_close(grads[0], grads[1] * 0.01)
    assert grads[1][0] > 0 and grads[1][1] == 0


def test_points_that_coincide_have_finite_gradients() -> None:
    head = head_of()
    for parameter in (*head.initial_points.parameters(), *head.refined_points.parameters()):
        torch.nn.init.zeros_(parameter)
    predictions = head(maps())
    assert torch.equal(predictions.boxes[..., :2], predictions.boxes[..., 2:])  # no box yet
    (predictions.boxes.square().sum() + predictions.initial_boxes.square().sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())


def with_group_norms(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same checkpoint as the originals name it with group norms in neck and head."""
    normed = {}
    for key, value in state.items():
        layer, _, last = key.rpartition(".conv.")
        if not layer.startswith(("neck.", "bbox_head.")):
            normed[key] = value
        elif last == "weight":
            normed |= {key: value, f"{layer}.gn.weight": torch.rand(256), f"{layer}.gn.bias": torch.rand(256)}
    return normed


def test_published_names_with_group_norms_fill_the_whole_model() -> None:
    state = with_group_norms(checkpoint("reppoints_r50"))
    model = create_model("reppoints_r50_gn_fpn")
    report = load_published(model, state)
    assert not report.unexpected and not report.missing, str(report)
    network = model.network
    assert torch.equal(network.neck.laterals[1].norm.bias, state["neck.lateral_convs.1.gn.bias"])
    assert torch.equal(network.neck.extra.convs[1].norm.weight, state["neck.fpn_convs.4.gn.weight"])
    assert torch.equal(network.branch.head.regression[2].norm.weight, state["bbox_head.reg_convs.2.gn.weight"])


def test_forms_with_group_norms_and_deformable_stages_train_a_step() -> None:
    torch.manual_seed(0)
    options = {"channels": 16, "depth": 1, "group_norm": True, "deformable_stages": (5,)}
    model = create_model("reppoints_r18_fpn", 3, **options).train()
    targets = [{"boxes": torch.tensor([[4.0, 6.0, 40.0, 50.0]]), "labels": torch.tensor([2])}] * 2
    losses = model.losses(torch.randn(2, 3, 64, 64), targets)
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.isfinite().all()), name
    assert any("laterals.0.norm" in name for name, _ in model.named_parameters())
