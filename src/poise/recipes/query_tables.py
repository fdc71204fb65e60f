"""Ablation tables of the supervision of a DETR's queries in training, each against its base."""

from __future__ import annotations

from poise.recipes.ablation import ArticleTable, options, rows

SMALL = options(encoder_layers=2, decoder_layers=2, queries=100)  # trains in minutes on a CPU

QUERY_TABLES: dict[str, ArticleTable] = {
    "mixed_supervision": ArticleTable(
        "one-to-many supervision of the queries of inference (MS-DETR), against its order of attention and H-DETR",
        "deformable_detr_plus_r18",
        rows(
            {
                "Deformable-DETR++": SMALL,
                "cross-attention first": SMALL | options(cross_first=True),
                "MS-DETR": SMALL | options(one_to_many="top_scores", class_weight=1.0),
                "MS-DETR, class weight 2": SMALL | options(one_to_many="top_scores"),
                "MS-DETR, after the layer": SMALL
                | options(one_to_many="mixed_supervision(after='layer')", class_weight=1.0),
                "MS-DETR, topk 3": SMALL | options(one_to_many="top_scores(topk=3)", class_weight=1.0),
                "H-DETR": SMALL | options(one_to_many_queries=100),
            }
        ),
    ),
    "distinct_queries": ArticleTable(
        "selection of queries by score and by class-agnostic NMS of three thresholds (DDQ), on DINO",
        "dino_r18",
        rows(
            {
                "DINO": SMALL,
                **{
                    f"distinct, IoU {threshold}": SMALL | options(distinct_queries=threshold)
                    for threshold in (0.7, 0.8, 0.9)
                },
                "Deformable-DETR++": SMALL | {"model.name": "deformable_detr_plus_r18"},
                "Deformable-DETR++, distinct": SMALL
                | options(distinct_queries=0.8)
                | {"model.name": "deformable_detr_plus_r18"},
            }
        ),
    ),
}
