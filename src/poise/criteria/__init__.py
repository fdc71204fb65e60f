"""Criteria: losses of predictions and their assignment, one file for each method."""

from poise.criteria.anchor import AnchorCriterion
from poise.criteria.centerness import CenternessCriterion, atss_criterion, fcos_criterion
from poise.criteria.distribution import DistributionCriterion, nanodet_plus_criterion
from poise.criteria.region import ProposalCriterion, RegionBoxCriterion, RegionCriterion
from poise.criteria.set_prediction import SetCriterion
from poise.protocols import Criterion

__all__ = [
    "AnchorCriterion",
    "CenternessCriterion",
    "Criterion",
    "DistributionCriterion",
    "ProposalCriterion",
    "RegionBoxCriterion",
    "RegionCriterion",
    "SetCriterion",
    "atss_criterion",
    "fcos_criterion",
    "nanodet_plus_criterion",
]
