"""Ablation tables of the labels of matched queries and priors, each against its base."""

from __future__ import annotations

from poise.recipes.ablation import ArticleTable, options, rows

LOSSES = {
    "matchability-aware loss": "matchability",
    "matchability-aware loss, gamma 2": "matchability(gamma=2.0)",
    "IoU-aware BCE": "iou_aware",
    "position-supervised loss": "position_supervised",
}
SMALL = {"encoder_layers": 2, "decoder_layers": 2, "queries": 100}  # trains in minutes on a CPU


def _on_queries(model: str, name: str) -> dict[str, dict[str, object]]:
    """Return the variants of a small DETR by title."""
    cost: dict[str, object] = {"assigner": "hungarian(position_power=0.5)"}
    changes: dict[str, dict[str, object]] = {"": {}}
    changes |= {f", {title}": {"class_loss": loss} for title, loss in LOSSES.items()}
    changes[", position-modulated cost"] = cost
    changes[", position-supervised loss and cost"] = {"class_loss": "position_supervised", **cost}
    changes[", high-order cost"] = {"assigner": "hungarian(iou_power=4.0, iou_power_epoch=9)"}
    return {f"{name}{title}": {"model.name": model, **options(**SMALL, **one)} for title, one in changes.items()}


def _mixed(loss: str = "focal", **augment: float) -> dict[str, object]:
    """Return the changes of a DINO whose last 12 epochs are plain."""
    settings = {f"augment.{name}": value for name, value in augment.items()}
    plain = {"augment.plain_epochs": 12} if augment else {}
    return {**options(**SMALL, class_loss=loss), **settings, **plain}


MATCHED_LABEL_TABLES: dict[str, ArticleTable] = {
    "matched_labels": ArticleTable(
        "labels and costs of matched queries (DEIM, Align-DETR, Stable-DINO, Rank-DETR), on DINO and Deformable-DETR++",
        "dino_r18",
        rows({**_on_queries("dino_r18", "DINO"), **_on_queries("deformable_detr_plus_r18", "Deformable-DETR++")}),
    ),
    "matched_priors": ArticleTable(
        "labels of positive priors (DEIM, Align-DETR, Stable-DINO), on the heads of ATSS and FCOS",
        "atss_r18_fpn",
        rows(
            {
                f"{name}{f', {title}' if title else ''}": {"model.name": model, **options(class_loss=loss)}
                for model, name in {"atss_r18_fpn": "ATSS", "fcos_r18_fpn": "FCOS"}.items()
                for title, loss in {"": "focal", "varifocal loss": "varifocal", **LOSSES}.items()
            }
        ),
    ),
    "dense_one_to_one": ArticleTable(
        "more objects an image for one-to-one matching (DEIM), off in the last 12 epochs, and its class loss, on DINO",
        "dino_r18",
        rows(
            {
                "DINO": _mixed(),
                "mosaic": _mixed(mosaic=0.5),
                "mixup": _mixed(mixup=0.5),
                "copy-paste": _mixed(copy_paste=0.5),
                "mosaic and mixup": _mixed(mosaic=0.5, mixup=0.5),
                "matchability-aware loss": _mixed("matchability"),
                "mosaic, mixup, matchability-aware loss": _mixed("matchability", mosaic=0.5, mixup=0.5),
            }
        ),
    ),
}
