"""Scenes with everything that is awkward about objects, for assigners and their slow references."""

from __future__ import annotations

import torch
from torch import Tensor

from poise.structures import GroundTruth
from support.scenes import CLASSES, HEIGHT, WIDTH, random_boxes

AWKWARD = torch.tensor(
    [
        [37.2, 41.3, 38.0, 42.1],  # tiny, without a prior inside
        [39.5, 39.5, 40.5, 40.5],  # tiny, around one place
        [0.0, 0.0, WIDTH, HEIGHT],  # the whole picture
        [-200.0, -150.0, 300.0, 280.0],  # far larger than the picture
        [30.0, 20.0, 70.0, 60.0],
        [30.0, 20.0, 70.0, 60.0],  # a duplicate of the same class
        [34.0, 24.0, 74.0, 66.0],  # overlapping, the same class
        [0.0, 50.0, 22.0, HEIGHT],  # touching the border
        [100.0, 0.0, WIDTH, 18.0],
        [-400.0, -400.0, -390.0, -380.0],  # outside of everything: no candidate
    ]
)
LABELS = torch.tensor([0, 1, 2, 3, 4, 4, 4, 0, 1, 2])


def hard_truth(count: int, seed: int) -> GroundTruth:
    """One image with ``count`` objects, the awkward ones first, in an order that the seed decides."""
    generator = torch.Generator().manual_seed(seed)
    more = max(0, count - len(AWKWARD))
    boxes = torch.cat((AWKWARD[:count], random_boxes(more, generator)))
    labels = torch.cat((LABELS[:count], torch.randint(CLASSES, (more,), generator=generator)))
    order = torch.randperm(count, generator=generator)
    return GroundTruth.collate([{"boxes": boxes[order], "labels": labels[order]}], [(HEIGHT, WIDTH)])


def objects_of(truth: GroundTruth) -> tuple[Tensor, Tensor]:
    """Boxes (n,4) in float64 and labels (n,) of a batch of one image."""
    return truth.boxes[0][truth.valid[0]].double(), truth.labels[0][truth.valid[0]]
