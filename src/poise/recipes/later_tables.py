"""Ablation tables of works after the five articles, against the bases of the claims (docs/later_schemes.md)."""

from __future__ import annotations

from poise.recipes.ablation import Ablation, ArticleTable, Variant, options
from poise.recipes.class_imbalance_tables import EFFECTIVE
from poise.recipes.without_nms_tables import ONE_TO_ONE

DENSE: dict[str, tuple[str, dict[str, object]]] = {  # title to detector and changes
    "DW": ("dw", {}),
    "FCOS": ("fcos", {}),
    "ATSS": ("atss", {}),
    "TOOD": ("tood", {}),
    "RFAssigner": ("dw", options(assigner="rf_assigner")),
    "RFLA": ("fcos", options(assigner="rfla")),
    "ATSS, NWD": ("atss", options(assigner="atss(similarity=nwd())")),
    "ATSS, SimD": ("atss", options(assigner="atss(similarity=simd())")),
    "ATSS, GCD": ("atss", options(assigner="atss(similarity=gcd())")),
    "FCOS, floor 16 px": ("fcos", options(assigner="center_region(floor=16.0)")),
    "TOOD, floor 16 px": ("tood", options(assigner="task_aligned(floor=16.0)")),
    "TOOD, balanced": ("tood", options(object_balance=1.0)),
    "ATSS, one-to-one alone": ("atss", options(assigner=ONE_TO_ONE, nms_threshold=None)),
    "ATSS, one-to-one and one-to-many": ("atss", options(one_to_one=ONE_TO_ONE)),
    "ATSS, matchability-aware loss": ("atss", options(class_loss="matchability")),
    "ATSS, IoU-aware BCE": ("atss", options(class_loss="iou_aware")),
    "ATSS, position-supervised loss": ("atss", options(class_loss="position_supervised")),
    "FCOS, EFL": ("fcos", options(class_balance="equalized_focal")),
    "FCOS, effective number": ("fcos", EFFECTIVE),
}
QUERIES: dict[str, dict[str, object]] = {
    "Deformable-DETR++": {},
    "matchability-aware loss": options(class_loss="matchability"),
    "IoU-aware BCE": options(class_loss="iou_aware"),
    "position-supervised loss and cost": options(
        class_loss="position_supervised", assigner="hungarian(position_power=0.5)"
    ),
    "high-order cost": options(assigner="hungarian(iou_power=4.0, iou_power_epoch=40)"),
    "MS-DETR": options(one_to_many="top_scores", class_weight=1.0),
    "distinct queries": options(distinct_queries=0.8),
    "mosaic and mixup": {"augment.mosaic": 0.5, "augment.mixup": 0.5, "augment.plain_epochs": 12},
}
FASTER_RCNN = options(sampler="random", refine="off", box_loss="l1")  # of Libra R-CNN's builder, as in claim 2
CLASSES: dict[str, dict[str, object]] = {
    "Faster R-CNN": {},
    "Seesaw": options(class_balance="seesaw"),
    "EQL v2": options(class_balance="equalization_v2"),
    "effective number": EFFECTIVE,
}


def _ablation(changes: dict[str, dict[str, object]]) -> Ablation:
    return Ablation(tuple(Variant(title, own) for title, own in changes.items()), (0, 1, 2))


LATER_TABLES: dict[str, ArticleTable] = {
    "later_dense": ArticleTable(
        "assigners, losses and heads of later works on dense detectors (docs/later_schemes.md)",
        "claims_dense",
        _ablation({title: {"model.name": f"{name}_r18_fpn", **own} for title, (name, own) in DENSE.items()}),
    ),
    "later_queries": ArticleTable(
        "labels, costs and supervision of queries of later works (docs/later_schemes.md)",
        "claims_detr",
        _ablation(QUERIES),
    ),
    "later_classes": ArticleTable(
        "losses and weights for rare classes on Faster R-CNN (docs/later_schemes.md)",
        "claims_two_stage",
        _ablation({title: FASTER_RCNN | own for title, own in CLASSES.items()}),
    ),
}
