"""Ablation tables of the articles for ``poise ablate``: each has a base model and variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from poise.recipes.ablation import Ablation, Variant
from poise.recipes.claims import dense_schemes, varifocal_schemes


@dataclass(frozen=True)
class ArticleTable:
    """One table: its subject, its base model or recipe, and its rows."""

    about: str
    recipe: str
    ablation: Ablation


def _rows(rows: Mapping[str, Mapping[str, Any]]) -> Ablation:
    return Ablation(tuple(Variant(name, changes) for name, changes in rows.items()))


def _options(**options: Any) -> dict[str, Any]:
    return {f"model.options.{name}": value for name, value in options.items()}


NANODET_GUIDANCE: dict[str, dict[str, Any]] = {
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
    "dw_negative_weight": ArticleTable(
        "the factors of DW's negative weight",
        "dw_r18_fpn",
        _rows(
            {
                "neither": _options(negative="neither"),
                "1 - positive weight": _options(negative="complement"),
                "probability alone": _options(negative="probability"),
                "importance alone": _options(negative="importance"),
                "both": _options(negative="both"),
            }
        ),
    ),
    "dw_candidate_bag": ArticleTable(
        "the candidate bag of DW: which priors may be positive",
        "dw_r18_fpn",
        _rows(
            {
                "distance, prior > 0.1": _options(bag="distance", bag_threshold=0.1),
                "distance, prior > 0.3": _options(bag="distance", bag_threshold=0.3),
                "distance, prior > 0.5": _options(bag="distance", bag_threshold=0.5),
                "9 nearest a level": _options(bag="topk", bag_topk=9),
                "15 nearest a level": _options(bag="topk", bag_topk=15),
                **{f"within {r} strides": _options(bag="radius", bag_radius=r) for r in (1.0, 1.5, 2.0)},
                "soft center prior": _options(bag="soft_center"),
                **{
                    f"{title}, plain negatives outside": _options(bag=bag, bag_bounds_negatives=True)
                    for title, bag in {"within 1.5 strides": "radius", "9 nearest a level": "topk"}.items()
                },
            }
        ),
    ),
    "dw_positive_weight": ArticleTable(
        "sharpness of DW's positive weight: beta of the box, mu of the consistency; mu alone also scales the loss",
        "dw_r18_fpn",
        _rows(
            {
                **{
                    f"beta {b}, mu {m}": _options(beta=float(b), mu=float(m), mu_total=float(m))
                    for b in (3, 5, 7)
                    for m in (3, 5, 8)
                },
                **{f"beta 5, mu {m}, mu_total 3": _options(mu=float(m), mu_total=3.0) for m in (5, 8)},
            }
        ),
    ),
    "dw_gammas": ArticleTable(
        "exponents of DW's negative weight: gamma1 of the IoU, gamma2 of the score",
        "dw_r18_fpn",
        _rows(
            {
                f"gamma1 {a}, gamma2 {b}": _options(gamma1=float(a), gamma2=float(b))
                for a in (1, 2, 3)
                for b in (1, 2, 3)
            }
        ),
    ),
    "dw_refinement": ArticleTable(
        "DW's box refinement on three backbones",
        "dw_r18_fpn",
        _rows(
            {
                f"{title}{' + refinement' if refine else ''}": {
                    "model.name": f"dw_{short}_fpn",
                    "model.options.refine": refine,
                }
                for title, short in {"MobileNetV3": "mnv3", "ResNet-18": "r18", "ResNet-50": "r50"}.items()
                for refine in (False, True)
            }
        ),
    ),
    "dw_form": ArticleTable(
        "DW as in the authors' code and as in their article, and what differs one by one",
        "dw_r18_fpn",
        _rows(
            {
                "code": {},
                "weights that sum to 1": _options(mu_total=5.0),
                "IoU^beta": _options(location="iou"),
                "linear probability": _options(overlap_function="linear"),
                "detached importance": _options(detach_importance=True),
                "article": _options(form="article"),
            }
        ),
    ),
    "dw_small_objects": ArticleTable(
        "parameters of DW by the size of the object (its article's section 4.3); see the column APs",
        "dw_r18_fpn",
        _rows(
            {
                "the same for all sizes": {},
                "mu 1 for small objects": _options(mu_small=1.0),
                "beta 3 for small objects": _options(beta_small=3.0),
                "gamma1 1 for small objects": _options(gamma1_small=1.0),
                "all three": _options(mu_small=1.0, beta_small=3.0, gamma1_small=1.0),
            }
        ),
    ),
    "label_assignment": ArticleTable(
        "hard and soft schemes of label assignment (DW's article, section 4.1)",
        "fcos_r18_fpn",
        _rows(
            {
                **{
                    title: {"model.name": f"{name}_r18_fpn"}
                    for title, name in {
                        "FCOS": "fcos",
                        "ATSS": "atss",
                        "PAA": "paa",
                        "OTA": "ota",
                        "TOOD": "tood",
                        "GFL": "gfl",
                        "GFLv2": "gflv2",
                        "VarifocalNet": "vfnet",
                        "FreeAnchor": "freeanchor",
                        "AutoAssign": "autoassign",
                        "DW": "dw",
                    }.items()
                },
                "VarifocalNet, no refinement": {"model.name": "vfnet_r18_fpn", "model.options.refine": False},
                "DW, no refinement": {"model.name": "dw_r18_fpn", "model.options.refine": False},
                "AutoAssign, detached weights": {"model.name": "autoassign_r18_fpn", **_options(weights="detached")},
                "AutoAssign, weights on the loss": {"model.name": "autoassign_r18_fpn", **_options(weights="loss")},
            }
        ),
    ),
    "dw_on_other_heads": ArticleTable(
        "dual weighting instead of the own schemes of RetinaNet, ATSS, GFL and FCOS, on their heads",
        "atss_r18_fpn",
        _rows(
            {
                f"{title}{scheme}": {"model.name": f"{name}_r18_fpn", **options}
                for title, name in {"RetinaNet": "retinanet", "ATSS": "atss", "GFL": "gfl", "FCOS": "fcos"}.items()
                for scheme, options in {"": {}, " + DW": _options(assigner="dual_weighting")}.items()
            }
        ),
    ),
    "vfnet_parts": ArticleTable(
        "VarifocalNet's loss, star features and refinement",
        "vfnet_r18_fpn",
        _rows(
            {
                "FCOS+ATSS": {"model.name": "atss_r18_fpn"},
                "varifocal loss": _options(star=False, refine=False),
                "+ star features": _options(refine=False),
                "+ refinement": {},
                "focal loss": _options(class_loss="focal"),
                "quality focal loss": _options(class_loss="quality_focal"),
            }
        ),
    ),
    "libra_parts": ArticleTable(
        "Libra R-CNN's three balances, and hard example mining, on Faster R-CNN",
        "libra_faster_rcnn_r18_fpn",
        _rows(
            {
                "Faster R-CNN": _options(sampler="random", refine="off", box_loss="l1"),
                "+ OHEM": _options(sampler="ohem", refine="off", box_loss="l1"),
                "+ IoU-balanced sampling": _options(sampler="balanced", refine="off", box_loss="l1"),
                "+ article's sampling": _options(sampler="article", refine="off", box_loss="l1"),
                "+ BFP": _options(sampler="random", refine="non_local", box_loss="l1"),
                "+ balanced L1": _options(sampler="random", refine="off", box_loss="balanced_l1"),
                "Libra R-CNN": {},
            }
        ),
    ),
    "libra_retinanet_parts": ArticleTable(
        "Libra RetinaNet's parts; beta 0.11 is the published loss, beta 1 the article's",
        "libra_retinanet_r18_fpn",
        _rows(
            {
                "RetinaNet": _options(refine="off", box_loss="l1"),
                "+ BFP": _options(box_loss="l1"),
                "+ balanced L1, beta 0.11": _options(refine="off"),
                "+ balanced L1, beta 1": _options(refine="off", box_loss="balanced_l1"),
                "Libra RetinaNet": {},
            }
        ),
    ),
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
    "co_detr_heads": ArticleTable(
        "Co-DETR's auxiliary heads on Deformable-DETR++: two-stage, mixed selection, look-forward-twice, no dropout",
        "co_deformable_detr_r18",
        _rows(
            {
                "K=0 (Deformable-DETR++)": _options(auxiliary_heads=""),
                "K=1 ATSS": _options(auxiliary_heads="atss"),
                "K=2 ATSS + Faster R-CNN": _options(auxiliary_heads="faster_rcnn,atss"),
                "K=2 ATSS + ATSS": _options(auxiliary_heads="atss,atss"),
            }
        ),
    ),
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
}
