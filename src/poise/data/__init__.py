"""Data sets: reading them as they are, checking them, augmenting and loading them.

Each name is loaded when it is first used, so that reading annotations needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poise.data.check import CheckReport, check_data
    from poise.data.check_text import render
    from poise.data.dataset import DetectionDataset
    from poise.data.demo import write_demo_data
    from poise.data.errors import BadData, BadImage, DataError
    from poise.data.faults import FAULT_KINDS, Fault, FaultKind
    from poise.data.hold_out import open_for_evaluation
    from poise.data.image_set import Category, ImageRecord, ImageSet
    from poise.data.images import image_size, read_image
    from poise.data.loader import evaluation_loader, train_loader
    from poise.data.opening import SplitChoice, TrainingSplits, choose_split, open_data, splits, training_splits
    from poise.data.proposals import with_proposals

_ROOMS = {
    "check": ("CheckReport", "check_data"),
    "check_text": ("render",),
    "errors": ("DataError", "BadData", "BadImage"),
    "faults": ("FAULT_KINDS", "Fault", "FaultKind"),
    "image_set": ("Category", "ImageRecord", "ImageSet"),
    "images": ("image_size", "read_image"),
    "dataset": ("DetectionDataset",),
    "loader": ("evaluation_loader", "train_loader"),
    "demo": ("write_demo_data",),
    "proposals": ("with_proposals",),
    "hold_out": ("open_for_evaluation",),
    "opening": ("SplitChoice", "TrainingSplits", "choose_split", "open_data", "splits", "training_splits"),
}
_FILE_OF = {name: file for file, names in _ROOMS.items() for name in names}

__all__ = [
    "open_data",
    "splits",
    "training_splits",
    "choose_split",
    "open_for_evaluation",
    "SplitChoice",
    "TrainingSplits",
    "ImageSet",
    "ImageRecord",
    "Category",
    "read_image",
    "image_size",
    "DataError",
    "BadData",
    "BadImage",
    "Fault",
    "FaultKind",
    "FAULT_KINDS",
    "check_data",
    "CheckReport",
    "render",
    "DetectionDataset",
    "train_loader",
    "evaluation_loader",
    "write_demo_data",
    "with_proposals",
]


def __getattr__(name: str) -> object:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)
