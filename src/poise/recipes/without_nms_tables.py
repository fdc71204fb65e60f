"""Ablation table of detection without NMS: one-to-one branch against one-to-many assignment with NMS."""

from __future__ import annotations

from poise.recipes.ablation import ArticleTable, options, rows

ONE_TO_ONE = "task_aligned(topk=7, keep=1)"

WITHOUT_NMS_TABLES: dict[str, ArticleTable] = {
    "without_nms": ArticleTable(
        "detection without NMS: one-to-one assignment alone and with ATSS, on ATSS's head",
        "atss_r18_fpn",
        rows(
            {
                "ATSS with NMS": {},
                "ATSS without NMS": options(nms_threshold=None),
                "one-to-one alone": options(assigner=ONE_TO_ONE, nms_threshold=None),
                "both branches": options(one_to_one=ONE_TO_ONE),
                "both, weights 0.5": options(one_to_one=f"dual_assignment(assigner={ONE_TO_ONE}, start=0.5, end=0.5)"),
                "both, topk 1": options(one_to_one="task_aligned(topk=1)"),
            }
        ),
    ),
}
