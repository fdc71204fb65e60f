"""Ablation tables of assigners and similarities for small objects, each against its base."""

from __future__ import annotations

from poise.recipes.ablation import ArticleTable, options, rows

SMALL_OBJECT_TABLES: dict[str, ArticleTable] = {
    "rfla": ArticleTable(
        "RFLA against center sampling and ATSS, on FCOS's head",
        "fcos_r18_fpn",
        rows(
            {
                "FCOS": {},
                "ATSS": options(assigner="atss"),
                "RFLA": options(assigner="rfla"),
                "RFLA, first stage alone": options(assigner="rfla(decay=1.0)"),
                "RFLA, decay 0.8": options(assigner="rfla(decay=0.8)"),
                "RFLA, 1 prior": options(assigner="rfla(topk=1)"),
                "RFLA, 5 priors": options(assigner="rfla(topk=5)"),
            }
        ),
    ),
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
