"""Assigners: which object each place answers to."""

from poise.assign.atss import ATSS
from poise.assign.center_region import CenterRegion
from poise.assign.dynamic_soft_label import DynamicSoftLabel
from poise.assign.max_iou import MaxIoU
from poise.assign.protocol import Assigner

__all__ = ["ATSS", "Assigner", "CenterRegion", "DynamicSoftLabel", "MaxIoU"]
