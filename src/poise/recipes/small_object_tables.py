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
    "similarities": ArticleTable(
        "NWD, SimD and GCD in place of the IoU, in max-IoU, ATSS and task-aligned assignment on ATSS's head",
        "atss_r18_fpn",
        rows(
            {
                "max-IoU": options(assigner="max_iou"),
                "max-IoU, NWD": options(assigner="max_iou(similarity=nwd())"),
                "max-IoU, SimD": options(assigner="max_iou(similarity=simd())"),
                "max-IoU, GCD": options(assigner="max_iou(similarity=gcd())"),
                "ATSS": {},
                "ATSS, NWD": options(assigner="atss(similarity=nwd())"),
                "ATSS, SimD": options(assigner="atss(similarity=simd())"),
                "ATSS, GCD": options(assigner="atss(similarity=gcd())"),
                "task-aligned": options(assigner="task_aligned"),
                "task-aligned, NWD": options(assigner="task_aligned(similarity=nwd())"),
                "task-aligned, SimD": options(assigner="task_aligned(similarity=simd())"),
                "task-aligned, GCD": options(assigner="task_aligned(similarity=gcd())"),
            }
        ),
    ),
    "least_sides": ArticleTable(
        "small-target-aware label assignment (STAL): sides below a floor grow to it in the test of inside",
        "fcos_r18_fpn",
        rows(
            {
                f"{title}{f', floor {floor} px' if floor else ''}": options(assigner=f"{name}(floor={floor}.0)")
                for title, name in {
                    "center region": "center_region",
                    "SimOTA": "sim_ota",
                    "task-aligned": "task_aligned",
                }.items()
                for floor in (0, 16, 32)
            }
        ),
    ),
    "covered_objects": ArticleTable(
        "ATSS with a floor of the sides, and with a positive for every object, on ATSS and VarifocalNet",
        "atss_r18_fpn",
        rows(
            {
                f"{title}{f', {change}' if change else ''}": {"model.name": model, **options(assigner=assigner)}
                for title, model in {"ATSS": "atss_r18_fpn", "VarifocalNet": "vfnet_r18_fpn"}.items()
                for change, assigner in {
                    "": "atss",
                    "floor 16 px": "atss(floor=16.0)",
                    "covered": "atss(floor=16.0, cover=True)",
                }.items()
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
