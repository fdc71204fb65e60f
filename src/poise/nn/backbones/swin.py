"""Swin transformers (Liu et al. 2021) as backbones for images of any size, with a layer norm of every feature map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor, nn
from torch.nn.functional import pad

from poise.nn.backbones.download import create_pretrained
from poise.nn.backbones.timm_features import load_backbone_weights

PATCH = 4  # px a token


class AnySizeBlock(SwinTransformerBlock):
    """Timm's block for maps of any size: they are padded to whole windows before the shift, as in the original."""

    def _attn(self, x: Tensor) -> Tensor:
        _, height, width, channels = x.shape
        side, shift = self.window_size[0], self.shift_size[0]
        x = pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1:3]
        if shift:
            x = torch.roll(x, (-shift, -shift), (1, 2))
        windows = window_partition(x, self.window_size).flatten(1, 2)
        windows = self.attn(windows, mask=self.get_attn_mask(x)).reshape(-1, side, side, channels)
        x = window_reverse(windows, self.window_size, rows, columns)
        if shift:
            x = torch.roll(x, (shift, shift), (1, 2))
        return x[:, :height, :width].contiguous()


class Swin(nn.Module):
    """Feature maps of a timm Swin transformer.

    Args:
        name: a timm model, for example ``swin_tiny_patch4_window7_224``.
        stages: strides of the feature maps as powers of two, from 2 to 5; must include the last.
        weights: ``None`` (random), ``"imagenet"`` (timm downloads them) or a file of timm's weights.
        frozen_stages: k freezes the patch embedding and the first k stages; -1 freezes nothing.
        drop_path: stochastic depth rate of the last block; rates increase linearly from 0.
    """

    def __init__(
        self,
        name: str,
        stages: Sequence[int] = (3, 4, 5),
        weights: str | Path | None = None,
        frozen_stages: int = -1,
        *,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.body: Any = _features(name, stages, weights == "imagenet", drop_path)
        self.channels: tuple[int, ...] = tuple(self.body.feature_info.channels())
        self.strides: tuple[int, ...] = tuple(2**stage for stage in stages)
        self.norms = nn.ModuleList([nn.LayerNorm(count) for count in self.channels])
        for module in self.body.modules():
            if isinstance(module, SwinTransformerBlock):
                module.__class__ = AnySizeBlock
        if weights is not None and weights != "imagenet":
            load_backbone_weights(self, Path(weights))
        children = [child for name, child in self.body.named_children() if name.startswith(("patch_embed", "layers"))]
        for parameter in (p for child in children[: frozen_stages + 1] for p in child.parameters()):
            parameter.requires_grad_(False)

    def freeze_as_pretrained(self) -> None:
        """Freeze nothing: published recipes train all layers."""

    def resolved_options(self) -> dict[str, object]:
        """Return no options: none depends on the weights."""
        return {}

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Compute one map (B,C_l,H/s_l,W/s_l) of each stage, finest first, sizes rounded up, of pixels (B,3,H,W)."""
        height, width = pixels.shape[-2:]
        maps = self.body(pad(pixels, (0, -width % PATCH, 0, -height % PATCH)))
        return [norm(level).permute(0, 3, 1, 2).contiguous() for norm, level in zip(self.norms, maps, strict=True)]


def _features(name: str, stages: Sequence[int], pretrained: bool, drop_path: float) -> Any:
    """Return timm's network for images of any size.

    Raises:
        ValueError: timm does not know the network, or the weights cannot be fetched.
    """
    options: dict[str, Any] = {"strict_img_size": False, "always_partition": True, "drop_path_rate": drop_path}
    wanted = [stage - 2 for stage in stages]
    if pretrained:
        return create_pretrained(name, features_only=True, out_indices=wanted, **options)
    try:
        return timm.create_model(name, features_only=True, out_indices=wanted, **options)
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"backbone '{name}': {first} (timm.list_models('swin_*') lists the networks)") from error
