"""Swin on images of any size: equal to timm where windows fit, padded in the original's order elsewhere."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor
from torch.nn.functional import pad

from poise.nn.backbones.swin import AnySizeBlock, Swin

TINY = "swin_tiny_patch4_window7_224"


def test_equals_timm_where_windows_fit() -> None:
    """Timm does not shift the last map, which one window covers; the published detectors do."""
    torch.manual_seed(0)
    own = Swin(TINY).eval()
    theirs = timm.create_model(TINY, features_only=True, pretrained=False, out_indices=(1, 2, 3)).eval()
    theirs.load_state_dict(own.body.state_dict(), strict=False)
    pixels = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        for level, norm, expected in list(zip(own(pixels), own.norms, theirs(pixels), strict=True))[:2]:
            torch.testing.assert_close(level, norm(expected).permute(0, 3, 1, 2), atol=1e-4, rtol=1e-4)


def regions(size: int, side: int, shift: int) -> Tensor:
    """Which of three parts each row of a shifted, padded map belongs to."""
    position = torch.arange(size)
    return (position >= size - side).long() + (position >= size - shift).long()


@pytest.mark.parametrize("shift", [0, 3])
def test_attention_where_windows_do_not_fit(shift: int) -> None:
    """Pad, shift, split into windows, attend within regions of a window, merge and crop, in loops."""
    torch.manual_seed(1)
    side, channels, heads = 7, 8, 2
    block = AnySizeBlock(
        channels, (10, 12), heads, window_size=side, shift_size=shift, always_partition=True, dynamic_mask=True
    )
    block.eval()
    x = torch.randn(1, 10, 12, channels)
    with torch.no_grad():
        found = block._attn(x)
        whole = torch.roll(pad(x, (0, 0, 0, 2, 0, 4)), (-shift, -shift), (1, 2))
        out = torch.zeros_like(whole)
        rows, columns = regions(14, side, shift), regions(14, side, shift)
        for top in (0, 7):
            for left in (0, 7):
                tokens = whole[:, top : top + 7, left : left + 7].reshape(1, 49, channels)
                region = (rows[top : top + 7, None] * 3 + columns[left : left + 7]).flatten()
                apart = (region[:, None] != region).float() * -100 if shift else torch.zeros(49, 49)
                out[:, top : top + 7, left : left + 7] = block.attn(tokens, mask=apart[None]).reshape(1, 7, 7, channels)
        expected = torch.roll(out, (shift, shift), (1, 2))[:, :10, :12]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_sizes_are_rounded_up() -> None:
    body = Swin(TINY, (2, 3, 4, 5)).eval()
    with torch.no_grad():
        shapes = [tuple(level.shape[2:]) for level in body(torch.randn(1, 3, 50, 35))]
    assert shapes == [(13, 9), (7, 5), (4, 3), (2, 2)]
    assert body.strides == (4, 8, 16, 32) and body.channels == (96, 192, 384, 768)


def test_freezing_and_unknown_networks() -> None:
    frozen = [name for name, p in Swin(TINY, frozen_stages=1).named_parameters() if not p.requires_grad]
    assert frozen and all(name.startswith(("body.patch_embed", "body.layers_0")) for name in frozen)
    with pytest.raises(ValueError, match="swin_huge"):
        Swin("swin_huge_patch4_window7_224")
