"""EVA-02 vision transformers (Fang et al. 2023) as backbones for images of any size, with window attention.

Blocks and names of weights are timm's. As in ViTDet (Li et al. 2022) most blocks attend within windows, every few
blocks attend to the whole image, and the feature pyramid is made of the last map alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import LayerNorm2d
from timm.models.eva import EvaBlock
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad
from torch.utils.checkpoint import checkpoint

from poise.nn.backbones.download import create_pretrained
from poise.nn.backbones.timm_features import load_backbone_weights

PATCH = 16  # px a token
GRID = 32  # tokens along each side of the learned position embedding
ANGLES = 16.0  # rotary positions run from 0 to this for every map size, the grid of EVA's first training
GLOBAL = {24: 4, 16: 3}  # window side (Co-DETR on COCO, on LVIS): every so many blocks one attends globally


class WindowBlock(EvaBlock):
    """Timm's block on maps (B,H,W,C), with attention inside windows of side ``window``; 0: global attention.

    Windows at the border are padded with zeros, which take part in attention, as in the original.
    """

    window: int = 0

    def forward(self, x: Tensor, rotations: Tensor) -> Tensor:  # type: ignore[override]
        batch, height, width, channels = x.shape
        seen, side = self.norm1(x), self.window
        if side:
            seen = pad(seen, (0, 0, 0, -width % side, 0, -height % side))
            rows, columns = seen.shape[1] // side, seen.shape[2] // side
            seen = seen.unflatten(2, (columns, side)).unflatten(1, (rows, side)).transpose(2, 3)
            found = self.attn(seen.flatten(3, 4).reshape(-1, side * side, channels), rope=rotations)
            found = found.unflatten(0, (batch, rows, columns)).unflatten(3, (side, side)).transpose(2, 3)
            found = found.flatten(3, 4).flatten(1, 2)[:, :height, :width]
        else:
            found = self.attn(seen.flatten(1, 2), rope=rotations).unflatten(1, (height, width))
        x = x + self.drop_path1(found)
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class Eva(nn.Module):
    """A timm EVA-02 transformer, whose feature map is its last one, of stride 16.

    Args:
        name: a timm model, for example ``eva02_large_patch14_448.mim_m38m_ft_in22k_in1k``.
        weights: ``None`` (random), ``"imagenet"`` (timm downloads them and fits them to patches of 16 pixels) or a file
            of timm's weights of the network with these patches.
        window: side of the windows in tokens, 24 or 16.
        drop_path: stochastic depth rate of the last block; rates increase linearly from 0.
        checkpointed: recompute the activations of blocks in the backward pass.
    """

    def __init__(
        self,
        name: str,
        weights: str | Path | None = None,
        window: int = 24,
        drop_path: float = 0.0,
        *,
        checkpointed: bool = False,
    ) -> None:
        super().__init__()
        if window not in GLOBAL:
            raise ValueError(f"window={window}: one of {', '.join(map(str, GLOBAL))}")
        self.body: Any = _transformer(name, weights == "imagenet", drop_path)
        self.window, self.checkpointed = window, checkpointed
        for number, block in enumerate(self.body.blocks):
            block.__class__ = WindowBlock
            block.window = 0 if number % GLOBAL[window] == GLOBAL[window] - 1 else window
        self.channels, self.strides = (int(self.body.embed_dim),), (PATCH,)
        self.norm = nn.LayerNorm(self.channels[0])
        if weights is not None and weights != "imagenet":
            load_backbone_weights(self, Path(weights))

    def freeze_as_pretrained(self) -> None:
        """Freeze nothing: published recipes train all layers."""

    def resolved_options(self) -> dict[str, object]:
        """Return no options: none depends on the weights."""
        return {}

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Compute one map (B,C,H/16,W/16), sizes rounded up, of pixels (B,3,H,W)."""
        height, width = pixels.shape[-2:]
        x = self.body.patch_embed.proj(pad(pixels, (0, -width % PATCH, 0, -height % PATCH))).permute(0, 2, 3, 1)
        rows, columns = x.shape[1:3]
        x = x + self._positions(rows, columns)
        width_of_head = self.channels[0] // self.body.blocks[0].attn.num_heads
        in_window = rotations(self.window, self.window, width_of_head, x.device)
        in_image = rotations(rows, columns, width_of_head, x.device)
        for block in self.body.blocks:
            inputs = (x, in_window if block.window else in_image)
            recompute = self.checkpointed and torch.is_grad_enabled()
            x = checkpoint(block, *inputs, use_reentrant=False) if recompute else block(*inputs)
        return [self.norm(x).permute(0, 3, 1, 2).contiguous()]

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Return the position embedding (1,rows,columns,C), interpolated to the map's size."""
        grid = self.body.pos_embed[:, 1:].unflatten(1, (GRID, GRID))  # without the class token
        if (rows, columns) == (GRID, GRID):
            return grid
        fitted = interpolate(grid.permute(0, 3, 1, 2), (rows, columns), mode="bicubic", align_corners=False)
        return fitted.permute(0, 2, 3, 1)


def rotations(rows: int, columns: int, width: int, device: torch.device) -> Tensor:
    """Return sines, then cosines, of the rotary position of each token, (rows * columns, 2 * width)."""
    frequencies = 10000.0 ** (-torch.arange(0, width // 2, 2, device=device).float() / (width // 2))
    row, column = (
        (torch.arange(n, device=device).float() / n * ANGLES)[:, None] * frequencies for n in (rows, columns)
    )
    row, column = row.repeat_interleave(2, 1), column.repeat_interleave(2, 1)
    angles = torch.cat((row[:, None].expand(-1, columns, -1), column[None].expand(rows, -1, -1)), -1).flatten(0, 1)
    return torch.cat((angles.sin(), angles.cos()), -1)


def _transformer(name: str, pretrained: bool, drop_path: float) -> Any:
    """Return timm's network without class token, head and final norm.

    Raises:
        ValueError: timm does not know the network, or the weights cannot be fetched.
    """
    options: dict[str, Any] = {"patch_size": PATCH, "img_size": PATCH * GRID, "drop_path_rate": drop_path}
    try:
        create = create_pretrained if pretrained else timm.create_model
        body: Any = create(name, num_classes=0, **options)
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"backbone '{name}': {first} (timm.list_models('eva02_*') lists the networks)") from error
    body.cls_token = None
    for attention in (block.attn for block in body.blocks):
        attention.num_prefix_tokens = 0
    body.norm, body.fc_norm, body.head, body.rope = (nn.Identity() for _ in range(4))
    return body


class SimplePyramid(nn.Module):
    """Makes five levels, strides 4 to 64, each from the single map of stride 16 (ViTDet, in Co-DETR's form)."""

    strides = (4, 8, 16, 32, 64)

    def __init__(self, in_channels: int, channels: int = 256) -> None:
        super().__init__()
        self.channels, half = channels, in_channels // 2
        finer = [nn.Upsample(scale_factor=2), *_conv(in_channels, half, 3), nn.GELU()]
        self.p2 = nn.Sequential(
            *finer, nn.Upsample(scale_factor=2), *_conv(half, channels, 3), nn.GELU(), *_level(channels, channels)
        )
        self.p3 = nn.Sequential(nn.Upsample(scale_factor=2), *_conv(in_channels, half, 3), nn.GELU())
        self.p3.extend(_level(half, channels))
        self.p4 = nn.Sequential(*_level(in_channels, channels))
        self.p5 = nn.Sequential(nn.MaxPool2d(3, 2, 1), *_level(in_channels, channels))
        coarser = _conv(in_channels, in_channels, 3, stride=2)
        self.p6 = nn.Sequential(nn.MaxPool2d(3, 2, 1), *coarser, nn.GELU(), *_level(in_channels, channels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        (one,) = maps
        return [level(one) for level in (self.p2, self.p3, self.p4, self.p5, self.p6)]


def _level(in_channels: int, channels: int) -> list[nn.Module]:
    return [*_conv(in_channels, channels, 1), nn.GELU(), *_conv(channels, channels, 3)]


def _conv(in_channels: int, channels: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=False)
    return [conv, LayerNorm2d(channels, eps=1e-6)]
