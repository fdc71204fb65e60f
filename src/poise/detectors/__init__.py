"""Detectors: networks made of backbone, neck and branches, and the model that ``create_model`` returns."""

from poise.detectors.dense import AssignGuidanceModule, DenseBranch, GuidedDetector, PyramidDetector
from poise.detectors.model import DetectionModel
from poise.detectors.query import QueryDetector

__all__ = [
    "AssignGuidanceModule",
    "DenseBranch",
    "DetectionModel",
    "GuidedDetector",
    "PyramidDetector",
    "QueryDetector",
]
