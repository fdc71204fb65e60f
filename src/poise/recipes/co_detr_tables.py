"""Ablation tables of Co-DETR's article (Zong et al. 2023): auxiliary heads, positive queries, related methods.

All rows of a table share the options given on the command line. The default model is Deformable-DETR++ on ResNet-18.
"""

from __future__ import annotations

from poise.recipes.ablation import ArticleTable, options, rows

EVERY_HEAD = (
    "faster_rcnn atss retinanet fcos gfl gflv2 vfnet paa dw tood foveabox ota autoassign freeanchor reppoints".split()
)
SIX_HEADS = "faster_rcnn,atss,paa,retinanet,fcos,gfl"
WITHOUT_QUERIES = options(max_auxiliary_queries=0)
WITHOUT_HEADS = options(auxiliary_head_weight=0.0)  # they assign and make queries, but are not trained

CO_DETR_TABLES: dict[str, ArticleTable] = {
    "co_detr_heads": ArticleTable(
        "Co-DETR's auxiliary heads on Deformable-DETR++: two-stage, mixed selection, look-forward-twice, no dropout",
        "co_deformable_detr_r18",
        rows(
            {
                "K=0 (Deformable-DETR++)": options(auxiliary_heads=""),
                "K=1 ATSS": options(auxiliary_heads="atss"),
                "K=2 ATSS + Faster R-CNN": options(auxiliary_heads="faster_rcnn,atss"),
                "K=2 ATSS + ATSS": options(auxiliary_heads="atss,atss"),
            }
        ),
    ),
    "co_detr_k": ArticleTable(
        "number and kind of auxiliary heads (tables 7 and 8): K = 1 with each head, K = 2, 3 and 6",
        "co_deformable_detr_r18",
        rows(
            {
                "K=0": options(auxiliary_heads=""),
                **{f"K=1 {head}": options(auxiliary_heads=head) for head in EVERY_HEAD},
                "K=2": options(auxiliary_heads="faster_rcnn,atss"),
                "K=3": options(auxiliary_heads="faster_rcnn,atss,paa"),
                "K=6": options(auxiliary_heads=SIX_HEADS),
                "K=6, all ATSS": options(auxiliary_heads=",".join(["atss"] * 6)),
            }
        ),
    ),
    "co_detr_components": ArticleTable(
        "auxiliary heads without customized positive queries, queries without trained heads, and both (table 9)",
        "co_deformable_detr_r18",
        rows(
            {
                "neither": options(auxiliary_heads=""),
                "auxiliary head": {**options(auxiliary_heads="atss"), **WITHOUT_QUERIES},
                "positive queries": {**options(auxiliary_heads="atss"), **WITHOUT_HEADS},
                "both": options(auxiliary_heads="atss"),
            }
        ),
    ),
    "co_detr_detectors": ArticleTable(
        "auxiliary heads on four DETRs (table 2), K = 0, 1 and 2",
        "conditional_detr_r18",
        rows(
            {
                f"{title}, K={number}": {"model.name": f"{name}_r18", **options(auxiliary_heads=heads)}
                for title, name in {
                    "Conditional-DETR": "conditional_detr",
                    "DAB-DETR": "dab_detr",
                    "Deformable-DETR": "deformable_detr",
                    "Deformable-DETR++": "co_deformable_detr",
                }.items()
                for number, heads in enumerate(("", "atss", "faster_rcnn,atss"))
            }
        ),
    ),
    "co_detr_related": ArticleTable(
        "more positive queries by other methods on Deformable-DETR++: Group-DETR, H-DETR, SQR (section 3.5)",
        "deformable_detr_plus_r18",
        rows(
            {
                "Deformable-DETR++": {},
                "Group-DETR, 3 groups": options(query_groups=3),
                "H-DETR": options(one_to_many_queries=300),
                "SQR": options(recollect=True),
                "Co-DETR, K=1": options(auxiliary_heads="atss"),
                "Co-DETR, K=2": options(auxiliary_heads="faster_rcnn,atss"),
                "encoder with an ATSS head (figures 2 and 3)": {
                    "model.name": "encoder_atss_r18",
                    **options(decoder_layers=0, queries=0),
                },
            }
        ),
    ),
}
