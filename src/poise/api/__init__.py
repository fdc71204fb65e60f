"""The facade: ``Detector`` and what the commands share with it."""

from poise.api.detector import Detector
from poise.api.folders import free_folder
from poise.api.warnings import ProposalsWarning, RandomWeightsWarning, SplitWarning

__all__ = ["Detector", "ProposalsWarning", "RandomWeightsWarning", "SplitWarning", "free_folder"]
