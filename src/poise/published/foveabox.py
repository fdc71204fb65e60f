"""Checkpoints of FoveaBox, as MMDetection publishes them."""

from __future__ import annotations

from poise.published.shared import SHARED, Rule

FOVEABOX: list[Rule] = [
    *SHARED,
    (r"bbox_head\.conv_cls\.(.+)", r"branch.head.classes.\1"),
    (r"bbox_head\.conv_reg\.(.+)", r"branch.head.box_distances.\1"),
]
