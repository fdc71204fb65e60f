"""Layers that train in another precision or order than autocast chooses on a CPU."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from poise.nn.kernels.bfloat16 import ChannelsFirstGroupNorm, DepthwiseConv2d, convert_slow_layers


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 5, 2, 2, groups=16), nn.GroupNorm(4, 16), nn.Conv2d(16, 16, 1)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def gradients(net: nn.Module, pixels: torch.Tensor, precision: torch.dtype | None) -> list[torch.Tensor]:
    net.zero_grad()
    with torch.autocast("cpu", dtype=precision or torch.bfloat16, enabled=precision is not None):
        out = net(pixels)
    if precision is not None:
        assert out.dtype == precision and out.is_contiguous(memory_format=torch.channels_last)
    out.float().square().mean().backward()
    return [parameter.grad.clone() for parameter in net.parameters()]  # type: ignore[union-attr]


def test_gradients_are_at_least_as_near_to_float64_as_those_of_plain_layers() -> None:
    pixels = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    plain, converted = network(), network()
    convert_slow_layers(converted)
    assert [type(one) for one in converted][1:3] == [DepthwiseConv2d, ChannelsFirstGroupNorm]
    exact = gradients(copy.deepcopy(plain).double(), pixels.double(), None)

    def error(found: list[torch.Tensor]) -> float:
        return float(sum((a.double() - b).norm() / b.norm() for a, b in zip(found, exact, strict=True)))

    expected = error(gradients(plain, pixels, torch.bfloat16))
    assert error(gradients(converted, pixels, torch.bfloat16)) < 1.2 * expected


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_prediction_and_float32_training_keep_their_bits(precision: torch.dtype) -> None:
    pixels = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    plain, converted = network(), network()
    convert_slow_layers(converted)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        assert torch.equal(plain(pixels), converted(pixels))
    for a, b in zip(gradients(plain, pixels, None), gradients(converted, pixels, None), strict=True):
        assert torch.equal(a, b)
    assert plain.state_dict().keys() == converted.state_dict().keys()
