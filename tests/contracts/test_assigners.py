"""The contract of assigners (``poise.testing``): every assigner of the list keeps it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from poise.assign import ATSS, OTA, RFLA, CenterRegion, DynamicSoftLabel, Fovea, MaxIoU, SimOTA, TaskAligned, TopScores
from poise.assign.auto_assign import AutoAssign
from poise.assign.center_priors import DistanceCenterPrior, TopKCenterPrior
from poise.assign.dual_weighting import BySize, DualWeighting, LinearIoU, NormalizedIoU, overlap_power
from poise.assign.free_anchor import FreeAnchor
from poise.assign.hungarian import Hungarian
from poise.assign.paa import PAA
from poise.assign.rep_points import FirstBoxOverlap, NearestPoint
from poise.assign.rf_assigner import ReceptiveFieldCandidates
from poise.similarities import GCD, NWD
from poise.structures import Assignment, PairWeights, QueryPredictions, RefinedPredictions
from poise.testing.assigners import CHECKS, Case

ASSIGNERS: dict[str, Callable[..., Assignment | PairWeights]] = {
    "max_iou": MaxIoU(),
    "max_iou_strict": MaxIoU(0.7, 0.3, 0.3),
    "max_iou_plain": MaxIoU(0.4, 0.4, low_quality=False),
    "atss": ATSS(topk=5),
    "center_region": CenterRegion(1.5, (24, 60)),
    "center_region_whole": CenterRegion(0.0, (24, 60), floor=24.0),
    "fovea": Fovea(),
    "rfla": RFLA(decay=0.5),
    "max_iou_nwd": MaxIoU(0.5, 0.4, similarity=NWD(20.0)),
    "task_aligned_gcd_floor": TaskAligned(similarity=GCD(), floor=24.0),
    "nearest_point": NearestPoint(),
    "first_box_overlap": FirstBoxOverlap(MaxIoU(0.4, 0.3)),
    "auto_assign": AutoAssign(),
    "free_anchor": FreeAnchor(),
    "paa": PAA(),
    "dynamic_soft_label": DynamicSoftLabel(),
    "dynamic_soft_label_rtmdet": DynamicSoftLabel(distance_beta=3.0),
    "ota": OTA(),
    "sim_ota": SimOTA(),
    "sim_ota_shifted": SimOTA(shift=0.5, topk=20, floor=24.0),
    "task_aligned": TaskAligned(),
    "task_aligned_powers": TaskAligned(4, 0.5, 2.5),
    "task_aligned_one": TaskAligned(7, keep=1),
    "hungarian": Hungarian(),
    "hungarian_groups": Hungarian(groups=3, repeats=2),
    "hungarian_position": Hungarian(position_power=0.5),
    "hungarian_iou": Hungarian(iou_power=4.0),
    "top_scores": TopScores(),
    "dual_weighting": DualWeighting(),
    "dual_weighting_article": DualWeighting(
        TopKCenterPrior(9), mu_total=5.0, location=overlap_power, negative_probability=LinearIoU()
    ),
    "dual_weighting_by_size": DualWeighting(
        DistanceCenterPrior(2.0),
        BySize(2.0, 5.0),
        BySize(1.0, 6.0),
        negative_probability=NormalizedIoU(BySize(1.0, 3.0)),
        bag_bounds_negatives=True,
        return_sizes=True,
    ),
    "rf_assigner": DualWeighting(candidates=ReceptiveFieldCandidates((0.4, 0.2, 0.1), low=0.3)),
    "auto_assign_geometric": AutoAssign(detached=True, geometric=True),
}
CASES = {
    **{name: Case(assigner) for name, assigner in ASSIGNERS.items()},
    "first_box_overlap": Case(ASSIGNERS["first_box_overlap"], RefinedPredictions, "last"),
    **{
        name: Case(ASSIGNERS[name], QueryPredictions, "own query") for name in ASSIGNERS if name.startswith("hungarian")
    },
    # the low-quality step: later objects overwrite earlier ones
    **{name: Case(ASSIGNERS[name], ties="last") for name in ("max_iou", "max_iou_strict", "max_iou_nwd", "paa")},
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ASSIGNERS)
def test_contract(name: str, check: Callable[[Case], None]) -> None:
    check(CASES[name])
