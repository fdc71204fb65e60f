"""Criteria: from predictions and their assignment to losses."""

from poise.criteria.anchor import AnchorCriterion
from poise.criteria.centerness import CenternessCriterion, atss_criterion, fcos_criterion
from poise.criteria.distribution import DistributionCriterion
from poise.criteria.protocol import Criterion

__all__ = [
    "AnchorCriterion",
    "CenternessCriterion",
    "Criterion",
    "DistributionCriterion",
    "atss_criterion",
    "fcos_criterion",
]
