"""Names of tensors in NanoDet-Plus's checkpoints.

The last convolution of a level outputs classes and box distances together in the original, and separately in poise, so
that another number of classes leaves the box distances as they were.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

Rule = tuple[str, str | None]

SEPARABLE = {"depthwise": "depthwise", "dwnorm": "depthwise_norm", "pointwise": "pointwise", "pwnorm": "pointwise_norm"}
GHOST = {"ghost1.primary_conv": "expand.primary", "ghost1.cheap_operation": "expand.cheap"} | {
    "ghost2.primary_conv": "project.primary",
    "ghost2.cheap_operation": "project.cheap",
    "shortcut": "shortcut",
}
DEFAULT_BINS = 8


def _renamed(original: str, own: str, parts: Mapping[str, str]) -> list[Rule]:
    """One rule a part, for patterns whose groups stand in ``own`` as \\1 and so on; what follows the part is kept."""
    return [(rf"{original}\.{theirs}\.(?P<rest>.+)", rf"{own}.{ours}.\g<rest>") for theirs, ours in parts.items()]


def _neck(original: str, own: str) -> list[Rule]:
    return [
        *_renamed(rf"{original}\.reduce_layers\.(\d)", rf"{own}.reduce.\1", {"conv": "0", "bn": "1"}),
        *_renamed(rf"{original}\.(top_down|bottom_up)_blocks\.(\d)\.blocks\.0", rf"{own}.\1.\2", GHOST),
        *_renamed(rf"{original}\.downsamples\.(\d)", rf"{own}.downsample.\1", SEPARABLE),
        *_renamed(rf"{original}\.extra_lvl_(in|out)_conv\.0", rf"{own}.extra_\1put", SEPARABLE),
    ]


RULES: list[Rule] = [
    (r"backbone\.(.+)", r"backbone.\1"),
    *_neck("fpn", "neck"),
    *_neck("aux_fpn", "guide.neck"),
    *_renamed(r"head\.cls_convs\.(\d)\.(\d)", r"branch.head.towers.\1.\2", SEPARABLE),
    (r"head\.gfl_cls\.(\d)\.(weight|bias) \((classes|box_distances)\)", r"branch.head.\3.\1.\2"),
    (r"head\.distribution_project\.project", None),
    *_renamed(r"aux_head\.cls_convs\.(\d)", r"guide.head.classification.\1", {"conv": "conv", "gn": "norm"}),
    *_renamed(r"aux_head\.reg_convs\.(\d)", r"guide.head.regression.\1", {"conv": "conv", "gn": "norm"}),
    (r"aux_head\.gfl_cls\.(.+)", r"guide.head.classes.\1"),
    (r"aux_head\.gfl_reg\.(.+)", r"guide.head.box_distances.\1"),
    (r"aux_head\.scales\.(\d)\.scale", r"guide.head.scales.\1.scale"),
]


def split_outputs(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split the output rows of each level into ``… (classes)`` and ``… (box_distances)``, which come last."""
    project = state.get("head.distribution_project.project")
    rows = 4 * (DEFAULT_BINS if project is None else len(project))
    split: dict[str, Tensor] = {}
    for key, value in state.items():
        if re.fullmatch(r"head\.gfl_cls\.\d\.(weight|bias)", key):
            split[f"{key} (classes)"], split[f"{key} (box_distances)"] = value[:-rows], value[-rows:]
        else:
            split[key] = value
    return split
