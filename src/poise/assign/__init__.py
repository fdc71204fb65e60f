"""Assigners: which object each prior is assigned to. One paper a file."""

from poise.assign.atss import ATSS
from poise.assign.auto_assign import AutoAssign
from poise.assign.center_region import CenterRegion
from poise.assign.dual_weighting import DualWeighting
from poise.assign.dynamic_soft_label import DynamicSoftLabel
from poise.assign.fovea import Fovea
from poise.assign.free_anchor import FreeAnchor
from poise.assign.hungarian import Hungarian
from poise.assign.max_iou import MaxIoU
from poise.assign.ota import OTA
from poise.assign.paa import PAA
from poise.assign.rfla import RFLA
from poise.assign.sim_ota import SimOTA
from poise.assign.task_aligned import TaskAligned
from poise.assign.top_scores import TopScores
from poise.protocols import Assigner

__all__ = [
    "ATSS",
    "OTA",
    "Assigner",
    "AutoAssign",
    "CenterRegion",
    "DualWeighting",
    "DynamicSoftLabel",
    "Fovea",
    "FreeAnchor",
    "Hungarian",
    "MaxIoU",
    "PAA",
    "RFLA",
    "SimOTA",
    "TaskAligned",
    "TopScores",
]
