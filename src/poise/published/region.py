"""Checkpoints of Faster R-CNN and Libra R-CNN (MMDetection; Libra R-CNN's own repository is its version 0.6)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from poise.published.shared import BACKBONE, TOWERS, Rule

PYRAMID: list[Rule] = [
    (r"neck\.lateral_convs\.(\d+)\.conv\.(.+)", r"neck.laterals.\1.\2"),
    (r"neck\.fpn_convs\.(\d+)\.conv\.(.+)", r"neck.outputs.\1.\2"),
]
BALANCED_PYRAMID: list[Rule] = [
    (r"neck\.0\.lateral_convs\.(\d+)\.conv\.(.+)", r"neck.0.laterals.\1.\2"),
    (r"neck\.1\.refine\.theta\.conv\.(.+)", r"neck.1.refine.query.\1"),
    (r"neck\.1\.refine\.phi\.conv\.(.+)", r"neck.1.refine.key.\1"),
    (r"neck\.1\.refine\.g\.conv\.(.+)", r"neck.1.refine.value.\1"),
    (r"neck\.1\.refine\.conv_out\.conv\.(.+)", r"neck.1.refine.output.\1"),
    (r"neck\.1\.refine\.conv\.(.+)", r"neck.1.refine.conv.\1"),
]
STAGES: list[Rule] = [
    (r"rpn_head\.rpn_conv\.(.+)", r"branch.proposal.head.conv.\1"),
    (r"rpn_head\.rpn_cls\.(.+)", r"branch.proposal.head.objectness.\1"),
    (r"rpn_head\.rpn_reg\.(.+)", r"branch.proposal.head.offsets.\1"),
    (r"roi_head\.bbox_head\.shared_fcs\.(\d)\.(.+)", r"branch.region.head.layers.\1.\2"),
    (r"roi_head\.bbox_head\.fc_cls\.(.+)", r"branch.region.head.classes.\1"),
    (r"roi_head\.bbox_head\.fc_reg\.(.+)", r"branch.region.head.offsets.\1"),
]
FASTER_RCNN: list[Rule] = [*BACKBONE, *PYRAMID, *STAGES]
FAST_RCNN: list[Rule] = [
    *BACKBONE,
    *PYRAMID,
    *[(pattern, name.replace("branch.region.", "branch.")) for pattern, name in STAGES if name and "region" in name],
]
LIBRA_FASTER_RCNN: list[Rule] = [
    *BACKBONE,
    *BALANCED_PYRAMID,
    (r"neck\.0\.fpn_convs\.(\d+)\.conv\.(.+)", r"neck.0.outputs.\1.\2"),
    *PYRAMID,  # where the balanced pyramid is switched off
    *STAGES,
]
LIBRA_RETINANET: list[Rule] = [
    *BACKBONE,
    *BALANCED_PYRAMID,
    (r"neck\.0\.fpn_convs\.([0-2])\.conv\.(.+)", r"neck.0.outputs.\1.\2"),
    (r"neck\.0\.fpn_convs\.3\.conv\.(.+)", r"neck.0.extra.convs.0.\1"),
    (r"neck\.0\.fpn_convs\.4\.conv\.(.+)", r"neck.0.extra.convs.1.\1"),
    *TOWERS,
    (r"bbox_head\.retina_cls\.(.+)", r"branch.head.classes.\1"),
    (r"bbox_head\.retina_reg\.(.+)", r"branch.head.offsets.\1"),
]


def modern(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a state dict of a two-stage detector of MMDetection before 2.0 to the names and layout of later ones.

    There the background is the first class instead of the last and has box offsets too (not trained), and the second
    stage has no prefix. Those models were also trained with whole-pixel boxes (width = x2 - x1 + 1) and another
    RoIAlign, which is not imitated: their accuracy moves by a few tenths of a point. Other state dicts are returned
    as they are.
    """
    if "bbox_head.fc_cls.weight" not in state:
        return dict(state)
    changed = {}
    for key, value in state.items():
        if key.startswith("bbox_head.fc_cls."):
            value = value.roll(-1, 0)
        elif key.startswith("bbox_head.fc_reg.") and len(value) == 4 * len(state["bbox_head.fc_cls.weight"]):
            value = value[4:]
        changed[f"roi_head.{key}" if key.startswith("bbox_head.") else key] = value
    return changed
