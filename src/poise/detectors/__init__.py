"""Detectors: networks made of backbone, neck and branches."""

from poise.detectors.dense import AssignGuidanceModule, DenseBranch, GuidedDetector, PyramidDetector
from poise.detectors.dual import DualBranch
from poise.detectors.encoder import EncoderDetector
from poise.detectors.query import QueryDetector

__all__ = [
    "AssignGuidanceModule",
    "DenseBranch",
    "DualBranch",
    "EncoderDetector",
    "GuidedDetector",
    "PyramidDetector",
    "QueryDetector",
]
