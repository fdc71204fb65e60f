"""Winograd convolution: equal to torch's convolution, and used only where it is allowed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from poise.nn.kernels.winograd import _Buffers
from poise.nn.layers import Conv3x3, output_conv, tower, winograd_is_faster

SIZES = ((24, 32), (13, 18), (6, 8), (3, 5), (1, 1))


def levels_of(channels: int, batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, channels, *size, generator=generator).requires_grad_() for size in SIZES]


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found.detach().double() - expected.detach()).norm() / expected.detach().norm())


@pytest.mark.parametrize("outputs", [64, 91, 160])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_equal_direct_convolution(outputs: int, bias: bool) -> None:
    conv, levels = Conv3x3(128, outputs, bias), levels_of(128)
    assert winograd_is_faster(levels, conv.weight)
    found = conv(levels)
    exact = copy.deepcopy(conv).double()
    wide = [level.detach().double().requires_grad_() for level in levels]
    expected = [functional.conv2d(level, exact.weight, exact.bias, padding=1) for level in wide]
    weights = [torch.randn_like(level) for level in found]
    sum((level * weight).sum() for level, weight in zip(found, weights, strict=True)).backward()
    sum((level * weight).sum() for level, weight in zip(expected, weights, strict=True)).backward()
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and distance(a, b) < 1e-5
    for a, b in zip((conv.weight, *levels), (exact.weight, *wide), strict=True):
        assert distance(a.grad, b.grad) < 1e-5
    assert not bias or distance(conv.bias.grad, exact.bias.grad) < 1e-5


def test_one_map_equals_the_first_of_several() -> None:
    conv, levels = Conv3x3(128, 64), levels_of(128)
    assert distance(conv(levels[0]), conv(levels)[0].double()) < 1e-5


def test_a_tower_processes_levels_jointly_or_separately() -> None:
    layers, levels = tower(128, 2, groups=32), levels_of(128)
    together, apart = layers(levels), [layers(level) for level in levels]
    for a, b in zip(together, apart, strict=True):
        assert distance(a, b.double()) < 1e-4


def test_frozen_weights_and_inputs_get_no_gradient() -> None:
    conv, levels = Conv3x3(128, 64), levels_of(128)
    conv.weight.requires_grad_(False)
    conv(levels)[0].sum().backward()
    assert conv.weight.grad is None and conv.bias.grad is not None and levels[0].grad is not None
    conv = Conv3x3(128, 64)
    conv([level.detach() for level in levels])[0].sum().backward()
    assert conv.weight.grad is not None


def test_few_channels_few_tiles_other_dtypes_and_autocast_use_torch() -> None:
    weight, levels = Conv3x3(128, 64).weight, levels_of(128)
    assert winograd_is_faster(levels, weight)
    assert not winograd_is_faster(levels[2:], weight)
    assert not winograd_is_faster(levels_of(64), Conv3x3(64, 64).weight)
    assert not winograd_is_faster(levels, output_conv(128, 4).weight)
    assert not winograd_is_faster([level.double() for level in levels], weight.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not winograd_is_faster(levels, weight)
        assert Conv3x3(128, 64)(levels)[0].dtype == torch.bfloat16


def test_compiled_and_exported_graphs_use_plain_convolutions() -> None:
    conv, level = Conv3x3(128, 64), levels_of(128)[0].detach()
    graph = torch.export.export(conv, (level,)).graph
    assert [node.target for node in graph.nodes if node.op == "call_function"] == [torch.ops.aten.conv2d.default]
    traced = torch.jit.trace(conv, level)
    assert "Convolution" not in str(traced.graph) and distance(traced(level), conv(level).double()) < 1e-5


@pytest.mark.parametrize("max_buffer", [0, 2**24])
def test_buffers_of_earlier_calls_change_nothing(max_buffer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of other sizes, in inference mode too, between a forward and its backward."""
    monkeypatch.setattr("poise.nn.kernels.winograd.MAX_BUFFER", max_buffer)
    monkeypatch.setattr("poise.nn.kernels.winograd.buffer", _Buffers())
    conv, other, levels = Conv3x3(128, 64), Conv3x3(192, 320), levels_of(128)
    with torch.inference_mode():
        conv(levels[:1])
    found = conv(levels)
    kept = [level.detach().clone() for level in found]
    other(levels_of(192))[0].sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(found, kept, strict=True))
    expected = [functional.conv2d(level, conv.weight, conv.bias, padding=1) for level in levels]
    ours = torch.autograd.grad(sum(level.square().sum() for level in found), (conv.weight, *levels))
    theirs = torch.autograd.grad(sum(level.square().sum() for level in expected), (conv.weight, *levels))
    for a, b in zip(ours, theirs, strict=True):
        assert distance(a, b.double()) < 1e-5
