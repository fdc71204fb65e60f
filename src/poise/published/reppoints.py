"""Checkpoints of RepPoints: the authors' and MMDetection's (the same names), with or without group norms."""

from __future__ import annotations

from poise.published.shared import SHARED, Rule

REPPOINTS: list[Rule] = [
    (r"neck\.lateral_convs\.(\d+)\.gn\.(.+)", r"neck.laterals.\1.norm.\2"),
    (r"neck\.fpn_convs\.([0-2])\.gn\.(.+)", r"neck.outputs.\1.norm.\2"),
    (r"neck\.fpn_convs\.3\.gn\.(.+)", r"neck.extra.convs.0.norm.\1"),
    (r"neck\.fpn_convs\.4\.gn\.(.+)", r"neck.extra.convs.1.norm.\1"),
    *SHARED,
    (r"bbox_head\.moment_transfer", r"branch.head.transfer"),
    (r"bbox_head\.reppoints_pts_init_conv\.(.+)", r"branch.head.initial_conv.\1"),
    (r"bbox_head\.reppoints_pts_init_out\.(.+)", r"branch.head.initial_points.\1"),
    (r"bbox_head\.reppoints_cls_conv\.(.+)", r"branch.head.class_conv.\1"),
    (r"bbox_head\.reppoints_cls_out\.(.+)", r"branch.head.classes.\1"),
    (r"bbox_head\.reppoints_pts_refine_conv\.(.+)", r"branch.head.refined_conv.\1"),
    (r"bbox_head\.reppoints_pts_refine_out\.(.+)", r"branch.head.refined_points.\1"),
]
