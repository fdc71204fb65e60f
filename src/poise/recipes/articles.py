"""Ablation tables of the articles for ``poise ablate``: each has a base model and variants."""

from __future__ import annotations

from poise.recipes.ablation import ArticleTable
from poise.recipes.ablation import options as _options
from poise.recipes.ablation import rows as _rows
from poise.recipes.claims import dense_schemes, dual_weighting_schemes, varifocal_schemes
from poise.recipes.class_imbalance_tables import CLASS_IMBALANCE_TABLES
from poise.recipes.co_detr_tables import CO_DETR_TABLES
from poise.recipes.dw_tables import DW_TABLES
from poise.recipes.later_tables import LATER_TABLES
from poise.recipes.libra_tables import LIBRA_TABLES
from poise.recipes.matched_label_tables import MATCHED_LABEL_TABLES
from poise.recipes.query_tables import QUERY_TABLES
from poise.recipes.small_object_tables import SMALL_OBJECT_TABLES
from poise.recipes.vfnet_tables import VFNET_TABLES
from poise.recipes.without_nms_tables import WITHOUT_NMS_TABLES

NANODET_GUIDANCE: dict[str, dict[str, object]] = {
    "guide, never detached": _options(detach_epoch=1_000_000),
    "guide, detached from the start": _options(detach_epoch=0),
    "guide, detached after detach_epoch": {},
    "no guide": _options(guide_depth=0),
    "no guide, ATSS": _options(guide_depth=0, assigner="atss"),
    "no guide, SimOTA": _options(guide_depth=0, assigner="sim_ota"),
}

TABLES: dict[str, ArticleTable] = {
    "dense_methods": ArticleTable(
        "FCOS, ATSS, VarifocalNet and DW on one backbone (their articles' main comparison)",
        "atss_r18_fpn",
        _rows(
            {
                "FCOS": {"model.name": "fcos_r18_fpn"},
                "ATSS": {"model.name": "atss_r18_fpn"},
                "VarifocalNet": {"model.name": "vfnet_r18_fpn"},
                "DW": {"model.name": "dw_r18_fpn"},
            }
        ),
    ),
    **DW_TABLES,
    **VFNET_TABLES,
    **LIBRA_TABLES,
    "nanodet_guidance": ArticleTable(
        "NanoDet-Plus with and without its assign guidance module, and with other assigners",
        "nanodet_plus_m_320",
        _rows({**NANODET_GUIDANCE, "no guide, FCOS": _options(guide_depth=0, assigner="center_region")}),
    ),
    "nanodet_cost": ArticleTable(
        "the matching cost of NanoDet-Plus: weight of the IoU (lambda), and the distance cost with its alpha and beta",
        "nanodet_plus_m_320",
        _rows(
            {
                "lambda 3": {},
                "lambda 1": _options(iou_weight=1.0),
                "lambda 6": _options(iou_weight=6.0),
                "+ distance, alpha 10, beta 3": _options(distance_beta=3.0),
                "+ distance, alpha 10, beta 1": _options(distance_beta=1.0),
                "+ distance, alpha 2, beta 3": _options(distance_alpha=2.0, distance_beta=3.0),
            }
        ),
    ),
    **CO_DETR_TABLES,
    **SMALL_OBJECT_TABLES,
    **CLASS_IMBALANCE_TABLES,
    **MATCHED_LABEL_TABLES,
    **QUERY_TABLES,
    **WITHOUT_NMS_TABLES,
}

TABLES |= {
    "claim_1": ArticleTable(
        "DW, VarifocalNet, ATSS, FCOS and others (docs/claims.md)", "claims_dense", dense_schemes()
    ),
    "claim_2": ArticleTable("Libra R-CNN's parts (docs/claims.md)", "claims_two_stage", TABLES["libra_parts"].ablation),
    "claim_3": ArticleTable(
        "the varifocal loss on four detectors (docs/claims.md)", "claims_dense", varifocal_schemes()
    ),
    "claim_4": ArticleTable("NanoDet-Plus's guide (docs/claims.md)", "claims_nanodet", _rows(NANODET_GUIDANCE)),
    "claim_5": ArticleTable(
        "Co-DETR's auxiliary heads (docs/claims.md)", "claims_co_detr", TABLES["co_detr_heads"].ablation
    ),
    "claim_6": ArticleTable(
        "DW's negative weight, candidate bag and mu (docs/claims.md)", "claims_dense", dual_weighting_schemes()
    ),
    **LATER_TABLES,
}
