"""Ablation tables of assigners and similarities for small objects, each against its base."""

from __future__ import annotations

from poise.recipes.ablation import ArticleTable, options, rows

SMALL_OBJECT_TABLES: dict[str, ArticleTable] = {
    "rf_assigner": ArticleTable(
        "RFAssigner against dual weighting, on DW's head",
        "dw_r18_fpn",
        rows(
            {
                "DW": {},
                "RFAssigner": options(assigner="rf_assigner"),
                "RFAssigner, one ratio": options(
                    assigner="rf_assigner(candidates=receptive_field_candidates(ratios=(0.2,)))"
                ),
                "RFAssigner, no lower bound": options(
                    assigner="rf_assigner(candidates=receptive_field_candidates(low=0.0))"
                ),
            }
        ),
    ),
}
