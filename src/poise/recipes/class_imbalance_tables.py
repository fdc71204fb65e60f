"""Ablation table of losses and weights for rare classes, each against its base."""

from __future__ import annotations

from poise.recipes.ablation import ArticleTable, options, rows

RETINANET: dict[str, object] = {"model.name": "retinanet_r18_fpn"}
EFFECTIVE: dict[str, object] = {"train.class_weights": "effective_number"}

CLASS_IMBALANCE_TABLES: dict[str, ArticleTable] = {
    "class_imbalance": ArticleTable(
        "losses and weights for rare classes, on Faster R-CNN and RetinaNet",
        "faster_rcnn_r18_fpn",
        rows(
            {
                "Faster R-CNN": {},
                "Faster R-CNN, balanced weights": {"train.class_weights": "balanced"},
                "Faster R-CNN, effective number": EFFECTIVE,
                "Faster R-CNN, Seesaw": options(class_balance="seesaw"),
                "Faster R-CNN, Seesaw, mitigation alone": options(class_balance="seesaw(q=0.0)"),
                "Faster R-CNN, EQL v2": options(class_balance="equalization_v2"),
                "RetinaNet": RETINANET,
                "RetinaNet, effective number": RETINANET | EFFECTIVE,
                "RetinaNet, EFL": RETINANET | options(class_balance="equalized_focal"),
                "RetinaNet, EFL, s = 4": RETINANET | options(class_balance="equalized_focal(scale=4.0)"),
            }
        ),
    ),
}
