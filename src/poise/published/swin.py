"""Translate tensor names of Swin transformers from Microsoft's (Co-DETR) and MMDetection's to timm's."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from poise.published.shared import Rule

MERGED = (0, 2, 1, 3)  # index in MMDetection of the neighbors that Microsoft concatenates first, second, …


def microsoft(first_norm: int) -> list[Rule]:
    """Rules of a backbone whose outputs begin at ``norm<first_norm>``."""
    return [
        (r"backbone\..*relative_position_index", None),
        *_norms(first_norm),
        *_merging("layers"),
        (r"backbone\.layers\.(\d)\.(.+)", r"backbone.body.layers_\1.\2"),
        (r"backbone\.patch_embed\.(.+)", r"backbone.body.patch_embed.\1"),
    ]


def mmdetection(first_norm: int) -> list[Rule]:
    """Rules for MMDetection's names, after :func:`reordered`."""
    block, own = r"backbone\.stages\.(\d)\.blocks\.(\d+)", r"backbone.body.layers_\1.blocks.\2"
    return [
        (r"backbone\..*relative_position_index", None),
        *_norms(first_norm),
        *_merging("stages"),
        (rf"{block}\.attn\.w_msa\.(.+)", rf"{own}.attn.\3"),
        (rf"{block}\.ffn\.layers\.0\.0\.(.+)", rf"{own}.mlp.fc1.\3"),
        (rf"{block}\.ffn\.layers\.1\.(.+)", rf"{own}.mlp.fc2.\3"),
        (rf"{block}\.(norm\d\..+)", rf"{own}.\3"),
        (r"backbone\.patch_embed\.projection\.(.+)", r"backbone.body.patch_embed.proj.\1"),
        (r"backbone\.patch_embed\.norm\.(.+)", r"backbone.body.patch_embed.norm.\1"),
    ]


def _norms(first: int) -> list[Rule]:
    return [(rf"backbone\.norm{i}\.(.+)", rf"backbone.norms.{i - first}.\1") for i in range(first, 4)]


def _merging(stages: str) -> list[Rule]:
    """Patch merging ends a stage there and begins the next one in timm."""
    return [
        (rf"backbone\.{stages}\.{i}\.downsample\.(.+)", rf"backbone.body.layers_{i + 1}.downsample.\1")
        for i in range(3)
    ]


def reordered(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict with the inputs of MMDetection's patch merging layers in Microsoft's order."""
    pattern = re.compile(r"backbone\.stages\.\d\.downsample\.(norm\.(weight|bias)|reduction\.weight)")
    return {key: _reordered(value) if pattern.fullmatch(key) else value for key, value in state.items()}


def _reordered(value: Tensor) -> Tensor:
    """Reorder the last axis from (channel, neighbor) to (neighbor, channel)."""
    neighbors = value.unflatten(-1, (-1, 4))[..., torch.tensor(MERGED)]
    ordered: Tensor = neighbors.transpose(-1, -2).flatten(-2)
    return ordered
