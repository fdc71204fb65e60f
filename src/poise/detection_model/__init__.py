"""The model that ``poise.create_model`` and ``poise.load`` return, around any network with ``predict``.

It knows no network: a file of another runtime is such a model without the code of heads and backbones.
"""

from poise.detection_model.model import DetectionModel, Target, check_targets
from poise.detection_model.postprocess_options import max_detections_of, with_postprocess_options
from poise.detection_model.proposals import MissingProposals, proposals_from_boxes

__all__ = [
    "DetectionModel",
    "MissingProposals",
    "Target",
    "check_targets",
    "max_detections_of",
    "proposals_from_boxes",
    "with_postprocess_options",
]
