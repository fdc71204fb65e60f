"""Views of one image and of one object of a stage. **N** priors, **G** padded objects, **C** classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from poise import boxes as geometry
from poise.pairwise import object_slices

POSITIVE_FRACTION = 0.1  # of an object's maximum weight: the least weight of a positive of a soft assignment


@dataclass(frozen=True)
class ObjectView:
    """All priors with respect to one object, (N,) each."""

    positive: Tensor  # weight of -ln p at the object's class, due to this object
    negative: Tensor  # weight of -ln (1 - p) at the object's class, plus that of the background; due to no object
    regression: Tensor  # weight of the box loss, due to this object
    score: Tensor  # predicted score of the object's class, in [0,1]
    iou: Tensor  # IoU of the predicted box with the object
    assigned: Tensor  # bool, the object's positives; of soft assignments those with at least 0.1 of its maximum weight


@dataclass(frozen=True)
class ImageView:
    """The priors of one image and its objects."""

    priors: Tensor  # (N,4)
    boxes: Tensor  # (N,4) predicted
    scores: Tensor  # (N,C)
    positive: Tensor  # (N,)
    negative: Tensor  # (N,C)
    background: Tensor | None  # (N,): negative weight of the background, where a head predicts it separately
    regression: Tensor  # (N,)
    index: Tensor  # (N,) int64: the object that each prior is assigned to (of several the heaviest), -1: none
    pairs: Tensor | None  # (N,G): ``positive`` by objects, of soft assignments
    objects: Tensor  # (G,4)
    labels: Tensor  # (G,)
    valid: Tensor  # (G,) bool

    @property
    def object_indices(self) -> list[int]:
        """Indices of the objects to be found (neither padding nor crowds)."""
        return self.valid.nonzero().flatten().tolist()

    def object_view(self, number: int) -> ObjectView:
        """The priors with respect to object ``number``; class 0 is used in a stage with one class."""
        label = min(int(self.labels[number]), self.scores.shape[1] - 1)
        assigned = self.index == number
        positive, regression = self.positive * assigned, self.regression * assigned
        if self.pairs is not None:
            positive = self.pairs[:, number]
            regression = self.regression * positive / self._positive_sum
            assigned = (positive > 0) & (positive >= POSITIVE_FRACTION * positive.amax())
        overlap = geometry.iou(self.boxes, self.objects[number]).nan_to_num()
        score = self.scores[:, label].nan_to_num()
        negative = self.negative[:, label] if self.background is None else self.negative[:, label] + self.background
        return ObjectView(positive, negative, regression, score, overlap, assigned)

    def centers_inside(self, number: int) -> Tensor:
        """Priors whose center lies in object ``number``, (N,) bool."""
        return geometry.distance_inside(self._centers[0], self.objects[number]) > 0

    @cached_property
    def _centers(self) -> Tensor:
        return (self.priors[None, :, :2] + self.priors[None, :, 2:]) / 2

    @cached_property
    def _positive_sum(self) -> Tensor:
        """The positive weight of each prior over all objects, (N,)."""
        return torch.zeros_like(self.positive) if self.pairs is None else self.pairs.sum(1).clamp(min=1e-30)

    @cached_property
    def best_overlap(self) -> tuple[Tensor, Tensor]:
        """The object with the highest IoU for each predicted box and that IoU, (N,) int64 and (N,); -1 and 0: none."""
        return self._best_overlap(self.boxes)

    @cached_property
    def best_prior_overlap(self) -> tuple[Tensor, Tensor]:
        """The object with the highest IoU for each prior box and that IoU."""
        return self._best_overlap(self.priors)

    @cached_property
    def objects_at_center(self) -> Tensor:
        """Number of objects that contain the center of each prior, (N,) int64; more than one: ambiguous."""
        count = torch.zeros_like(self.index)
        for part in self._chunks():
            depth = geometry.distance_inside(self._centers[0][:, None], self.objects[part])
            count += ((depth > 0) & self.valid[part]).sum(1)
        return count

    def _best_overlap(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        best, best_object = boxes.new_zeros(len(boxes)), torch.full_like(self.index, -1)
        for part in self._chunks():
            overlap = geometry.iou(boxes[:, None], self.objects[part]).nan_to_num()
            value, index = torch.where(self.valid[part], overlap, -1.0).max(1)
            best_object = torch.where(value > best, index + part.start, best_object)
            best = torch.maximum(best, value)
        return best_object, best

    def _chunks(self) -> list[slice]:
        return object_slices(1, len(self.boxes), len(self.objects), planes_alive=4)
