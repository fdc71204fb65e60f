"""Assigners of points on heads with several anchors per cell: the best anchor of each cell is the point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from poise.boxes import iou
from poise.structures import Assignment, GroundTruth, Predictions


@dataclass(frozen=True)
class BestAnchor:
    """Of the positives of each cell, the anchor with the largest IoU with its object; the others become negatives.

    All anchors of a cell share their center, so that an assigner that reads positions (FCOS's, FoveaBox's) makes all of
    them positive or none. Ties go to the first anchor.

    Args:
        assigner: assigner of points.
        count: number of anchors per cell; those of a cell follow each other.
    """

    assigner: Callable[[Predictions, GroundTruth], Assignment]
    count: int

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        assignment = self.assigner(predictions, truth)
        overlap = iou(predictions.priors.boxes.float(), assignment.boxes(truth))
        overlap = overlap.masked_fill(~assignment.positive, -1).unflatten(1, (-1, self.count))
        order = torch.arange(self.count, device=overlap.device)
        first = torch.where(overlap == overlap.amax(2, keepdim=True), order, self.count).amin(2, keepdim=True)
        positive = assignment.positive & (order == first).flatten(1)
        return replace(assignment, positive=positive, quality=assignment.quality * positive)
