"""Deformable convolution, in backbones and towers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from poise.nn.backbones.timm_features import Backbone, make_deformable
from poise.nn.kernels.deformable_sampling import deform_conv_in_bags
from poise.nn.layers import DeformableConv, init_towers, tower


def bilinear(image: Tensor, y: float, x: float) -> Tensor:
    """One value of (C,H,W) between pixels, corners outside counting as 0."""
    height, width = image.shape[1:]
    total = torch.zeros(image.shape[0])
    low_y, low_x = int(torch.tensor(y).floor()), int(torch.tensor(x).floor())
    for row in (low_y, low_y + 1):
        for column in (low_x, low_x + 1):
            if 0 <= row < height and 0 <= column < width:
                total = total + image[:, row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_equals_a_literal_reference(stride: int, gated: bool) -> None:
    torch.manual_seed(0)
    conv = DeformableConv(3, 4, stride=stride, gated=gated)
    nn.init.normal_(conv.conv_offset.weight, std=0.3)
    nn.init.normal_(conv.conv_offset.bias)
    x = torch.randn(1, 3, 5, 6)
    found = conv(x)[0]
    moves = conv.conv_offset(x)[0].detach()
    expected = torch.zeros_like(found)
    for i in range(found.shape[1]):
        for j in range(found.shape[2]):
            for tap in range(9):
                dy, dx = moves[2 * tap, i, j], moves[2 * tap + 1, i, j]
                y, x_ = i * stride - 1 + tap // 3 + float(dy), j * stride - 1 + tap % 3 + float(dx)
                gate = moves[18 + tap, i, j].sigmoid() if gated else 1.0
                expected[:, i, j] += gate * conv.weight[:, :, tap // 3, tap % 3] @ bilinear(x[0], y, x_)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_starts_as_the_plain_convolution_or_half_of_it_if_gated() -> None:
    plain = nn.Conv2d(6, 8, 3, 2, 1, groups=2)
    x = torch.randn(2, 6, 9, 7)
    bias = plain.bias[:, None, None]  # type: ignore[index]
    torch.testing.assert_close(DeformableConv.of(plain)(x) - bias, (plain(x) - bias) / 2)
    torch.testing.assert_close(DeformableConv.of(plain, gated=False)(x), plain(x))


def test_runs_inside_autocast_and_in_half_precision() -> None:
    conv, x = DeformableConv(3, 4), torch.randn(1, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert conv(x.bfloat16()).dtype == torch.bfloat16
    assert conv(x).dtype == torch.float32


@pytest.mark.parametrize(("name", "count"), [("resnet50", 13), ("res2net50_26w_4s", 39), ("resnext50_32x4d", 13)])
def test_stages_become_deformable_and_keep_their_weights(name: str, count: int) -> None:
    torch.manual_seed(0)
    plain = Backbone(name)
    torch.manual_seed(0)
    deformable = Backbone(name, deformable_stages=(3, 4, 5))
    replaced = [module for module in deformable.modules() if isinstance(module, DeformableConv)]
    assert len(replaced) == count
    own = plain.state_dict()
    state = deformable.state_dict()
    added = set(state) - set(own)
    assert set(own) <= set(state) and all("conv_offset" in key for key in added)
    assert [level.shape for level in deformable(torch.randn(1, 3, 64, 64))] == [
        level.shape for level in plain(torch.randn(1, 3, 64, 64))
    ]


def test_pretrained_weights_survive(tmp_path) -> None:  # type: ignore[no-untyped-def]
    source = Backbone("resnet18")
    torch.save(source.body.state_dict(), tmp_path / "weights.pth")
    loaded = Backbone("resnet18", weights=tmp_path / "weights.pth", deformable_stages=(4,))
    assert torch.equal(loaded.body.layer3[0].conv2.weight, source.body.layer3[0].conv2.weight)
    assert isinstance(loaded.body.layer3[0].conv2, DeformableConv)


def test_backbones_without_such_stages_are_refused() -> None:
    with pytest.raises(ValueError, match="stage 3 of this backbone has no 3x3 convolutions"):
        Backbone("mobilenetv3_small_100", deformable_stages=(3,))
    with pytest.raises(ValueError, match="stage 9"):
        Backbone("resnet18", deformable_stages=(9,))
    assert make_deformable(nn.Sequential(nn.ReLU())) == 0


def test_only_the_last_layer_of_a_tower_is_deformable() -> None:
    layers = tower(32, 3, deformable=True)
    init_towers(layers)
    assert [isinstance(layer.conv, DeformableConv) for layer in layers] == [False, False, True]


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "kernel"), [(1, 1, 1, 3), (2, 1, 1, 3), (1, 2, 2, 3), (1, 0, 1, 1)]
)
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize(("height", "width"), [(7, 6), (1, 1)])  # two maps of one cell have fewer than a sample reads
def test_embedding_bags_equal_torchvision(
    height: int, width: int, stride: int, padding: int, dilation: int, kernel: int, gated: bool
) -> None:
    """Values and gradients, with taps inside, between and far outside the map."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 5, height, width), torch.randn(4, 5, kernel, kernel), torch.randn(4)
    size = torch.nn.functional.conv2d(x, weight, None, stride, padding, dilation).shape[2:]
    offset = torch.randn(2, 2 * kernel * kernel, *size) * 3
    offset[0, 0, 0] = 1e6
    gate = torch.rand(2, kernel * kernel, *size) if gated else None
    inputs = [t.double().requires_grad_() for t in (x, offset, weight, bias, *([] if gate is None else [gate]))]
    results = []
    for form in (deform_conv_in_bags, deform_conv2d):
        found = form(*inputs[:4], stride, padding, dilation, *(inputs[4:] or [None]))
        results.append([found, *torch.autograd.grad(found.square().sum(), inputs)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)
