"""Checkpoints of DW's authors (strongwolf/DW)."""

from __future__ import annotations

from poise.published.shared import SHARED, Rule

DW: list[Rule] = [
    *SHARED,
    (r"bbox_head\.conv_cls\.(.+)", r"branch.head.classes.\1"),
    (r"bbox_head\.conv_reg\.(.+)", r"branch.head.box_distances.\1"),
    (r"bbox_head\.conv_centerness\.(.+)", r"branch.head.objectness.\1"),
    (r"bbox_head\.reg_offset\.(.+)", r"branch.head.refinement.offsets.\1"),
    (r"bbox_head\.(center_prior\..+)", r"branch.head.\1"),
]
