"""Ablation tables of DW's article (Li et al. 2022), and of DW on other heads."""

from __future__ import annotations

from poise.recipes.ablation import ArticleTable, options, rows

DW_TABLES: dict[str, ArticleTable] = {
    "dw_negative_weight": ArticleTable(
        "the factors of DW's negative weight",
        "dw_r18_fpn",
        rows(
            {
                "neither": options(negative="neither"),
                "1 - positive weight": options(negative="complement"),
                "probability alone": options(negative="probability"),
                "importance alone": options(negative="importance"),
                "both": options(negative="both"),
            }
        ),
    ),
    "dw_candidate_bag": ArticleTable(
        "the candidate bag of DW: which priors may be positive",
        "dw_r18_fpn",
        rows(
            {
                "distance, prior > 0.1": options(bag="distance", bag_threshold=0.1),
                "distance, prior > 0.3": options(bag="distance", bag_threshold=0.3),
                "distance, prior > 0.5": options(bag="distance", bag_threshold=0.5),
                "9 nearest a level": options(bag="topk", bag_topk=9),
                "15 nearest a level": options(bag="topk", bag_topk=15),
                **{f"within {r} strides": options(bag="radius", bag_radius=r) for r in (1.0, 1.5, 2.0)},
                "soft center prior": options(bag="soft_center"),
                **{
                    f"{title}, plain negatives outside": options(bag=bag, bag_bounds_negatives=True)
                    for title, bag in {"within 1.5 strides": "radius", "9 nearest a level": "topk"}.items()
                },
            }
        ),
    ),
    "dw_positive_weight": ArticleTable(
        "sharpness of DW's positive weight: beta of the box, mu of the consistency; mu alone also scales the loss",
        "dw_r18_fpn",
        rows(
            {
                **{
                    f"beta {b}, mu {m}": options(beta=float(b), mu=float(m), mu_total=float(m))
                    for b in (3, 5, 7)
                    for m in (3, 5, 8)
                },
                **{f"beta 5, mu {m}, mu_total 3": options(mu=float(m), mu_total=3.0) for m in (5, 8)},
            }
        ),
    ),
    "dw_gammas": ArticleTable(
        "exponents of DW's negative weight: gamma1 of the IoU, gamma2 of the score",
        "dw_r18_fpn",
        rows(
            {f"gamma1 {a}, gamma2 {b}": options(gamma1=float(a), gamma2=float(b)) for a in (1, 2, 3) for b in (1, 2, 3)}
        ),
    ),
    "dw_refinement": ArticleTable(
        "DW's box refinement on three backbones",
        "dw_r18_fpn",
        rows(
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
        rows(
            {
                "code": {},
                "weights that sum to 1": options(mu_total=5.0),
                "IoU^beta": options(location="iou"),
                "linear probability": options(overlap_function="linear"),
                "detached importance": options(detach_importance=True),
                "article": options(form="article"),
            }
        ),
    ),
    "dw_small_objects": ArticleTable(
        "parameters of DW by the size of the object (its article's section 4.3); see the column APs",
        "dw_r18_fpn",
        rows(
            {
                "the same for all sizes": {},
                "mu 1 for small objects": options(mu_small=1.0),
                "beta 3 for small objects": options(beta_small=3.0),
                "gamma1 1 for small objects": options(gamma1_small=1.0),
                "gamma2 3 for small objects": options(gamma2_small=3.0),
                "all four": options(mu_small=1.0, beta_small=3.0, gamma1_small=1.0, gamma2_small=3.0),
            }
        ),
    ),
    "label_assignment": ArticleTable(
        "hard and soft schemes of label assignment (DW's article, section 4.1)",
        "fcos_r18_fpn",
        rows(
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
                "AutoAssign, detached weights": {"model.name": "autoassign_r18_fpn", **options(weights="detached")},
                "AutoAssign, weights on the loss": {"model.name": "autoassign_r18_fpn", **options(weights="loss")},
            }
        ),
    ),
    "dw_on_other_heads": ArticleTable(
        "dual weighting instead of the own schemes of RetinaNet, ATSS, GFL and FCOS, on their heads",
        "atss_r18_fpn",
        rows(
            {
                f"{title}{scheme}": {"model.name": f"{name}_r18_fpn", **changes}
                for title, name in {"RetinaNet": "retinanet", "ATSS": "atss", "GFL": "gfl", "FCOS": "fcos"}.items()
                for scheme, changes in {"": {}, " + DW": options(assigner="dual_weighting")}.items()
            }
        ),
    ),
}
