"""Names of tensors: the originals' checkpoints against poise's modules.

A map is a list of (pattern, replacement) pairs of regular expressions; the first pattern that matches the whole
of an original key gives poise's name. A replacement of ``None`` marks a key that poise computes itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

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

RETINANET: list[Rule] = [
    *SHARED,
    (r"bbox_head\.retina_cls\.(.+)", r"branch.head.classes.\1"),
    (r"bbox_head\.retina_reg\.(.+)", r"branch.head.offsets.\1"),
]
FCOS: list[Rule] = [  # conv_* in current files, fcos_* in those of before mmdet 2
    *SHARED,
    (r"bbox_head\.(?:conv|fcos)_cls\.(.+)", r"branch.head.classes.\1"),
    (r"bbox_head\.(?:conv|fcos)_reg\.(.+)", r"branch.head.sides.\1"),
    (r"bbox_head\.(?:conv|fcos)_centerness\.(.+)", r"branch.head.centerness.\1"),
]
ATSS: list[Rule] = [
    *SHARED,
    (r"bbox_head\.atss_cls\.(.+)", r"branch.head.classes.\1"),
    (r"bbox_head\.atss_reg\.(.+)", r"branch.head.sides.\1"),
    (r"bbox_head\.atss_centerness\.(.+)", r"branch.head.centerness.\1"),
]
GFL: list[Rule] = [
    *SHARED,
    (r"bbox_head\.gfl_cls\.(.+)", r"branch.head.classes.\1"),
    (r"bbox_head\.gfl_reg\.(.+)", r"branch.head.sides.\1"),
    (r"bbox_head\.integral\.project", None),
]
FAMILIES: dict[str, list[Rule]] = {"retinanet": RETINANET, "fcos": FCOS, "atss": ATSS, "gfl": GFL}


def rules_of(name: str) -> list[Rule] | None:
    """The rules of a model's name: those of the longest family name that it starts with."""
    families = [family for family in FAMILIES if name.startswith(f"{family}_")]
    return FAMILIES[max(families, key=len)] if families else None


def translate(key: str, rules: Iterable[Rule]) -> tuple[bool, str | None]:
    """Whether a rule knows the original's key, and poise's name for it (None: not needed)."""
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, key)
        if match:
            return True, None if replacement is None else match.expand(replacement)
    return False, None
