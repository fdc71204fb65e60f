"""Deformable convolution in plain operators against torchvision's."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import deform_conv2d

from poise.export.deformable import plain_deform_conv2d
from poise.export.graph import program_of
from poise.nn.layers import DeformableConv


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "groups", "offset_groups", "gated"),
    [(3, 1, 1, 1, 1, 1, True), (3, 2, 1, 1, 2, 1, False), (3, 1, 2, 2, 4, 2, True), (1, 1, 0, 1, 1, 1, False)],
)
def test_equal_to_torchvision(
    kernel: int, stride: int, padding: int, dilation: int, groups: int, offset_groups: int, gated: bool
) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 8, 11, 13), torch.randn(12, 8 // groups, kernel, kernel), torch.randn(12)
    rows, columns = ((length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for length in (11, 13))
    taps = offset_groups * kernel * kernel
    offset = torch.randn(2, 2 * taps, rows, columns) * 4  # many taps leave the map
    gate = torch.rand(2, taps, rows, columns) if gated else None
    wanted = deform_conv2d(x, offset, weight, bias, stride, padding, dilation, gate)
    mask = torch.zeros(2, 1) if gate is None else gate
    numbers = (stride, stride, padding, padding, dilation, dilation, groups, offset_groups)
    found = plain_deform_conv2d(x, weight, offset, mask, bias, *numbers, gated)
    torch.testing.assert_close(found, wanted, atol=5e-5, rtol=1e-5)


def test_the_graph_holds_no_deformable_operator() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(DeformableConv(4, 6), DeformableConv(6, 5, stride=2, gated=False)).eval()
    for layer in layers:
        layer.conv_offset.weight.data.normal_(0, 0.2)  # type: ignore[union-attr,operator]
    x = torch.randn(1, 4, 9, 12)
    program = program_of(layers, x)
    assert not any("deform" in str(node.target) for node in program.graph.nodes)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), layers(x), atol=1e-5, rtol=1e-5)


def test_other_kernels_are_refused() -> None:
    x, weight, offset = torch.randn(1, 2, 5, 5), torch.randn(2, 2, 1, 3), torch.zeros(1, 6, 5, 3)
    with pytest.raises(ValueError, match="only square"):
        plain_deform_conv2d(x, weight, offset, x, x, 1, 1, 0, 0, 1, 1, 1, 1, False)
