"""Checkpoints of TOOD: the authors' and MMDetection's (the same names)."""

from __future__ import annotations

from poise.published.shared import SHARED, Rule

_TASKS: list[Rule] = [
    rule
    for short, name in (("cls", "classification"), ("reg", "regression"))
    for rule in (
        (rf"bbox_head\.{short}_decomp\.layer_attention\.(.+)", rf"branch.head.{name}.attention.\1"),
        (rf"bbox_head\.{short}_decomp\.reduction_conv\.conv\.(.+)", rf"branch.head.{name}.conv.\1"),
        (rf"bbox_head\.{short}_decomp\.reduction_conv\.gn\.(.+)", rf"branch.head.{name}.norm.\1"),
    )
]
TOOD: list[Rule] = [
    *SHARED,
    *_TASKS,
    (r"bbox_head\.inter_convs\.(\d+)\.conv\.(.+)", r"branch.head.tower.\1.conv.\2"),
    (r"bbox_head\.inter_convs\.(\d+)\.gn\.(.+)", r"branch.head.tower.\1.norm.\2"),
    (r"bbox_head\.tood_cls\.(.+)", r"branch.head.classes.\1"),
    (r"bbox_head\.tood_reg\.(.+)", r"branch.head.box_distances.\1"),
    (r"bbox_head\.cls_prob_module\.(.+)", r"branch.head.alignment.\1"),
    (r"bbox_head\.reg_offset_module\.(.+)", r"branch.head.offsets.\1"),
]
