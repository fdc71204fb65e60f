"""Ablation tables of VarifocalNet's article (Zhang et al. 2021), and of its loss on other detectors."""

from __future__ import annotations

from poise.recipes.ablation import ArticleTable, options, rows

VFNET_TABLES: dict[str, ArticleTable] = {
    "vfnet_parts": ArticleTable(
        "VarifocalNet's loss, star features and refinement",
        "vfnet_r18_fpn",
        rows(
            {
                "FCOS+ATSS": {"model.name": "atss_r18_fpn"},
                "varifocal loss": options(star=False, refine=False),
                "+ star features": options(refine=False),
                "+ refinement": {},
                "focal loss": options(class_loss="focal"),
                "quality focal loss": options(class_loss="quality_focal"),
            }
        ),
    ),
    "varifocal_losses": ArticleTable(
        "focal, quality focal and varifocal loss on ten detectors (VarifocalNet's table 1, and five more)",
        "atss_r18_fpn",
        rows(
            {
                f"{title}, {loss.replace('_', ' ')}": {
                    "model.name": f"{name}_r18_fpn",
                    f"model.options.{'objectness_loss' if name == 'yolox' else 'class_loss'}": loss,
                }
                for title, name in {
                    "RetinaNet": "retinanet",
                    "FoveaBox": "foveabox",
                    "RepPoints": "reppoints",
                    "ATSS": "atss",
                    "FCOS": "fcos",
                    "GFL": "gfl",
                    "YOLOX objectness": "yolox",
                    "TOOD": "tood",
                    "PAA": "paa",
                    "VarifocalNet": "vfnet",
                }.items()
                for loss in ("focal", "quality_focal", "varifocal")
            }
        ),
    ),
    "vfnet_loss": ArticleTable(
        "alpha, gamma and IoU weights of the varifocal loss, and VarifocalNet's box losses as in code and article",
        "vfnet_r18_fpn",
        rows(
            {
                "alpha 0.75, gamma 2, q weighting": {},
                **{f"gamma {gamma}": options(gamma=gamma) for gamma in (1.0, 1.5, 2.5, 3.0)},
                **{f"alpha {alpha}": options(alpha=alpha) for alpha in (0.5, 1.0, 1.25, 1.5)},
                "no q weighting": options(iou_weighted=False),
                "box losses by the number of positives": options(box_normalizer="positives"),
                "article (the same, initial box weighted by q)": options(
                    box_normalizer="positives", initial_iou="refined"
                ),
            }
        ),
    ),
}
