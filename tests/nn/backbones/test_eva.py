"""EVA-02 with window attention against its definition, block by block; timm's weights load."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from poise.models import create_model
from poise.nn.backbones.eva import Eva, SimplePyramid, WindowBlock, rotations

NAME = "eva02_tiny_patch14_224"


@pytest.fixture(scope="module")
def network() -> Eva:
    torch.manual_seed(0)
    return Eva(NAME, window=24).eval()


def literal_rotations(rows: int, columns: int, width: int) -> Tensor:
    """Angle of each token (row-major) and channel: the first half by the row, the second by the column."""
    angles = torch.zeros(rows * columns, width)
    for row in range(rows):
        for column in range(columns):
            for channel in range(width):
                position, axis = (
                    (row / rows, channel) if channel < width // 2 else (column / columns, channel - width // 2)
                )
                angles[row * columns + column, channel] = position * 16 * 10000 ** (-(axis // 2 * 2) / (width // 2))
    return angles


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate pairs of channels (a, b) to (a cos - b sin, b cos + a sin)."""
    out = torch.empty_like(x)
    for i in range(0, x.shape[-1], 2):
        a, b, cos, sin = x[..., i], x[..., i + 1], angles[:, i].cos(), angles[:, i].sin()
        out[..., i], out[..., i + 1] = a * cos - b * sin, b * cos + a * sin
    return out


def literal_attention(attention: Any, x: Tensor, angles: Tensor) -> Tensor:
    """(N,C) tokens of one window."""
    heads, found = attention.num_heads, []
    q, k, v = (getattr(attention, f"{name}_proj")(x).unflatten(1, (heads, -1)).transpose(0, 1) for name in "qkv")
    for i in range(heads):
        alike = rotated(q[i], angles) @ rotated(k[i], angles).T / math.sqrt(q.shape[-1])
        found.append(alike.softmax(-1) @ v[i])
    return attention.proj(torch.cat(found, 1))


def literal_block(block: Any, x: Tensor, window: int) -> Tensor:
    """One map (H,W,C), window by window, padded with zeros."""
    height, width, channels = x.shape
    sides = (window, window) if window else (height, width)
    padded = torch.zeros(-(-height // sides[0]) * sides[0], -(-width // sides[1]) * sides[1], channels)
    padded[:height, :width] = block.norm1(x)
    found, angles = torch.zeros_like(padded), literal_rotations(*sides, channels // block.attn.num_heads)
    for top in range(0, padded.shape[0], sides[0]):
        for left in range(0, padded.shape[1], sides[1]):
            part = (slice(top, top + sides[0]), slice(left, left + sides[1]))
            found[part] = literal_attention(block.attn, padded[part].flatten(0, 1), angles).unflatten(0, sides)
    x = x + found[:height, :width]
    mlp, y = block.mlp, block.norm2(x)
    return x + mlp.fc2(mlp.norm(torch.nn.functional.silu(mlp.fc1_g(y)) * mlp.fc1_x(y)))


@pytest.mark.parametrize("window", [2, 0], ids=["windows", "everywhere"])
@torch.no_grad()
def test_a_block_equals_its_definition(window: int) -> None:
    torch.manual_seed(0)
    large: dict[str, Any] = {"qkv_fused": False, "mlp_ratio": 8 / 3, "swiglu_mlp": True, "scale_mlp": True}
    block = WindowBlock(32, 2, num_prefix_tokens=0, **large)
    block.window = window
    x = torch.randn(2, 3, 5, 32)
    found = block(x, rotations(*((2, 2) if window else (3, 5)), 16, x.device))
    for image, expected in zip(found, x, strict=True):
        torch.testing.assert_close(image, literal_block(block, expected, window), atol=2e-5, rtol=1e-4)


def test_every_fourth_block_attends_globally(network: Eva) -> None:
    assert [block.window for block in network.body.blocks] == [24, 24, 24, 0] * 3
    assert [block.window for block in Eva(NAME, window=16).body.blocks] == [16, 16, 0] * 4
    with pytest.raises(ValueError, match="24, 16"):
        Eva(NAME, window=7)


@torch.no_grad()
def test_maps_of_any_size(network: Eva) -> None:
    pyramid = SimplePyramid(network.channels[0], 8)
    maps = pyramid(network(torch.randn(1, 3, 50, 96)))
    assert [tuple(level.shape) for level in maps] == [
        (1, 8, 16, 24),
        (1, 8, 8, 12),
        (1, 8, 4, 6),
        (1, 8, 2, 3),
        (1, 8, 1, 2),
    ]


@torch.no_grad()
def test_timm_weights_load(tmp_path: Path) -> None:
    """A file of the classification network with patches of 16 pixels; its classifier is ignored."""
    torch.manual_seed(1)
    source = timm.create_model(NAME, patch_size=16, img_size=512)
    torch.save(source.state_dict(), tmp_path / "eva.pt")
    body = Eva(NAME, tmp_path / "eva.pt").body
    assert torch.equal(body.blocks[5].mlp.fc1.weight, source.blocks[5].mlp.fc1.weight)
    assert torch.equal(body.patch_embed.proj.weight, source.patch_embed.proj.weight)


def test_every_parameter_is_trained_and_checkpointing_changes_nothing() -> None:
    options: dict[str, Any] = {"backbone": NAME, "channels": 16, "attention_heads": 2, "hidden": 32, "queries": 9}
    options |= {"encoder_layers": 1, "decoder_layers": 1, "regions": 16, "region_hidden": 16, "deterministic": True}
    grads = []
    for layers in (0, 1):
        torch.manual_seed(0)
        model = create_model("co_dino_5scale_vit_l", num_classes=2, **{**options, "checkpointed_layers": layers})
        targets = [{"boxes": torch.tensor([[4.0, 4.0, 40.0, 28.0]]), "labels": torch.tensor([1])}]
        pixels = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
        losses = model.train().losses(pixels, targets)
        torch.stack(list(losses.values())).sum().backward()
        grads.append({key: p.grad for key, p in model.named_parameters() if p.requires_grad})
    assert not [key for key, grad in grads[0].items() if grad is None or not grad.isfinite().all()]
    for key, grad in grads[0].items():
        torch.testing.assert_close(grads[1][key], grad, rtol=1e-4, atol=1e-6 + 1e-4 * float(grad.abs().max()))
