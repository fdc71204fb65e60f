"""Checkpoints of AutoAssign, as MMDetection publishes them (on a Caffe backbone: ``autoassign_r50_caffe_fpn``)."""

from __future__ import annotations

from poise.published.shared import SHARED, Rule

AUTOASSIGN: list[Rule] = [
    *SHARED,
    (r"bbox_head\.conv_cls\.(.+)", r"branch.head.classes.\1"),
    (r"bbox_head\.conv_reg\.(.+)", r"branch.head.box_distances.\1"),
    (r"bbox_head\.conv_centerness\.(.+)", r"branch.head.centerness.\1"),
    (r"bbox_head\.(center_prior\..+)", r"branch.head.\1"),
]
