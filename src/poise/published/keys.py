"""Rules that translate tensor names of published checkpoints to those of poise (see ``published.shared``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from poise.published import nanodet_plus
from poise.published.autoassign import AUTOASSIGN
from poise.published.co_detr import CO_DETRS, split_embedding
from poise.published.detr import DETRS
from poise.published.dw import DW
from poise.published.foveabox import FOVEABOX
from poise.published.region import FAST_RCNN, FASTER_RCNN, LIBRA_FASTER_RCNN, LIBRA_RETINANET, modern
from poise.published.reppoints import REPPOINTS
from poise.published.shared import SHARED, Rule
from poise.published.swin import reordered
from poise.published.tood import TOOD
from poise.published.vfnet import VFNET

RETINANET: list[Rule] = [
    *SHARED,
    (r"bbox_head\.retina_cls\.(.+)", r"branch.head.classes.\1"),
    (r"bbox_head\.retina_reg\.(.+)", r"branch.head.offsets.\1"),
]
FCOS: list[Rule] = [  # conv_* in current files, fcos_* in those of before mmdet 2
    *SHARED,
    (r"bbox_head\.(?:conv|fcos)_cls\.(.+)", r"branch.head.classes.\1"),
    (r"bbox_head\.(?:conv|fcos)_reg\.(.+)", r"branch.head.box_distances.\1"),
    (r"bbox_head\.(?:conv|fcos)_centerness\.(.+)", r"branch.head.centerness.\1"),
]
ATSS: list[Rule] = [
    *SHARED,
    (r"bbox_head\.atss_cls\.(.+)", r"branch.head.classes.\1"),
    (r"bbox_head\.atss_reg\.(.+)", r"branch.head.box_distances.\1"),
    (r"bbox_head\.atss_centerness\.(.+)", r"branch.head.centerness.\1"),
]
GFL: list[Rule] = [
    *SHARED,
    (r"bbox_head\.gfl_cls\.(.+)", r"branch.head.classes.\1"),
    (r"bbox_head\.gfl_reg\.(.+)", r"branch.head.box_distances.\1"),
    (r"bbox_head\.integral\.project", None),
]
GFLV2: list[Rule] = [
    (r"backbone\.stem\.([0-6])\.(.+)", r"backbone.body.conv1.\1.\2"),  # Res2Net's deep stem
    (r"backbone\.stem\.7\.(.+)", r"backbone.body.bn1.\1"),
    *GFL,
    (r"bbox_head\.reg_conf\.(.+)", r"branch.head.quality.layers.\1"),
]
FAMILIES: dict[str, list[Rule]] = {
    "retinanet": RETINANET,
    "fcos": FCOS,
    "atss": ATSS,
    "gfl": GFL,
    "gflv2": GFLV2,
    "dw": DW,
    "vfnet": VFNET,
    "autoassign": AUTOASSIGN,
    "foveabox": FOVEABOX,
    "freeanchor": RETINANET,
    "paa": ATSS,
    "reppoints": REPPOINTS,
    "tood": TOOD,
}
FAMILIES["nanodet_plus"] = nanodet_plus.RULES
FAMILIES["fast_rcnn"] = FAST_RCNN
FAMILIES |= {"faster_rcnn": FASTER_RCNN, "libra_faster_rcnn": LIBRA_FASTER_RCNN, "libra_retinanet": LIBRA_RETINANET}
FAMILIES |= DETRS
FAMILIES |= CO_DETRS
PREPARED: dict[str, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = {  # applied before names are translated
    "nanodet_plus": nanodet_plus.split_outputs,
    "co_deformable_detr": split_embedding,
    "dino_5scale_swin": reordered,
    "fast_rcnn": modern,
    "faster_rcnn": modern,
    "libra_faster_rcnn": modern,
}


def rules_of(name: str) -> list[Rule] | None:
    """Return the rules of a model, those of the longest family name with which its name starts."""
    families = [family for family in FAMILIES if name.startswith(f"{family}_")]
    return FAMILIES[max(families, key=len)] if families else None


def prepared(name: str, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the state dict with tensors that can be renamed one by one."""
    families = [family for family in PREPARED if name.startswith(f"{family}_")]
    return PREPARED[max(families, key=len)](state) if families else state


def translate(key: str, rules: Iterable[Rule]) -> tuple[bool, str | None]:
    """Return whether a rule matches the key, and poise's name for it (None: not needed)."""
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, key)
        if match:
            return True, None if replacement is None else match.expand(replacement)
    return False, None
