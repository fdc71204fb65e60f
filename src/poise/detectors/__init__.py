"""Detectors: how parts are joined, and the module that users hold."""

from poise.detectors.guided import Guide, GuidedDetector
from poise.detectors.model import DetectionModel
from poise.detectors.pyramid import PyramidDetector
from poise.detectors.query import QueryDetector

__all__ = ["DetectionModel", "Guide", "GuidedDetector", "PyramidDetector", "QueryDetector"]
