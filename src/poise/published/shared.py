"""Rules that most families of published checkpoints share.

A map is a list of (pattern, replacement) pairs of regular expressions; the first pattern that matches the whole
of an original key gives poise's name. A replacement of ``None`` marks a key that poise computes itself.
"""

from __future__ import annotations

Rule = tuple[str, str | None]

BACKBONE: list[Rule] = [(r"backbone\.(.+)", r"backbone.body.\1")]
PYRAMID: list[Rule] = [
    (r"neck\.lateral_convs\.(\d+)\.conv\.(.+)", r"neck.laterals.\1.\2"),
    (r"neck\.fpn_convs\.([0-2])\.conv\.(.+)", r"neck.outputs.\1.\2"),
    (r"neck\.fpn_convs\.3\.conv\.(.+)", r"neck.extra.convs.0.\1"),
    (r"neck\.fpn_convs\.4\.conv\.(.+)", r"neck.extra.convs.1.\1"),
]
TOWERS: list[Rule] = [
    (r"bbox_head\.cls_convs\.(\d+)\.gn\.(.+)", r"branch.head.classification.\1.norm.\2"),
    (r"bbox_head\.reg_convs\.(\d+)\.gn\.(.+)", r"branch.head.regression.\1.norm.\2"),
    (r"bbox_head\.cls_convs\.(\d+)\.(.+)", r"branch.head.classification.\1.\2"),
    (r"bbox_head\.reg_convs\.(\d+)\.(.+)", r"branch.head.regression.\1.\2"),
    (r"bbox_head\.scales\.(\d+)\.scale", r"branch.head.scales.\1.scale"),
]
SHARED = [*BACKBONE, *PYRAMID, *TOWERS]
