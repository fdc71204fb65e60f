"""Checkpoints of VarifocalNet: the authors' and MMDetection's (the same names)."""

from __future__ import annotations

from poise.published.shared import SHARED, Rule

VFNET: list[Rule] = [
    (r"backbone\.stem\.([0-6])\.(.+)", r"backbone.body.conv1.\1.\2"),  # Res2Net's deep stem
    (r"backbone\.stem\.7\.(.+)", r"backbone.body.bn1.\1"),
    *SHARED,
    (r"bbox_head\.vfnet_reg_conv\.conv\.(.+)", r"branch.head.box_layer.conv.\1"),
    (r"bbox_head\.vfnet_reg_conv\.gn\.(.+)", r"branch.head.box_layer.norm.\1"),
    (r"bbox_head\.vfnet_reg\.(.+)", r"branch.head.box_distances.\1"),
    (r"bbox_head\.vfnet_reg_refine_dconv\.(.+)", r"branch.head.refinement.conv.\1"),
    (r"bbox_head\.vfnet_reg_refine\.(.+)", r"branch.head.refinement.box_distances.\1"),
    (r"bbox_head\.scales_refine\.(\d+)\.scale", r"branch.head.refinement.scales.\1.scale"),
    (r"bbox_head\.vfnet_cls_dconv\.(.+)", r"branch.head.conv.\1"),
    (r"bbox_head\.vfnet_cls\.(.+)", r"branch.head.classes.\1"),
]
