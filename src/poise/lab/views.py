"""One image of an explained stage, and what its objects see. **N** places, **G** padded objects, **C** classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from poise import boxes as geometry
from poise.pairwise.chunks import object_chunks

SHARE = 0.1  # of its object's greatest weight: what makes a place of a soft assignment one of its positives


@dataclass(frozen=True)
class ObjectView:
    """All places as one object sees them, (N,) each."""

    positive: Tensor  # weight of -ln p at the object's class, on behalf of this object
    negative: Tensor  # weight of -ln (1 - p) at the object's class and of "nothing", on behalf of nobody in particular
    regression: Tensor  # weight of the box loss, on behalf of this object
    score: Tensor  # predicted score of the object's class, in [0,1]
    iou: Tensor  # of the predicted box with the object
    chosen: Tensor  # bool, its positives: those assigned to it; of weights, those with a tenth of its greatest or more


@dataclass(frozen=True)
class ImageView:
    """The places of one image and its objects."""

    priors: Tensor  # (N,4)
    boxes: Tensor  # (N,4) predicted
    scores: Tensor  # (N,C)
    positive: Tensor  # (N,)
    negative: Tensor  # (N,C)
    background: Tensor | None  # (N,): negative weight of all classes at once, where a head says "nothing" apart
    regression: Tensor  # (N,)
    index: Tensor  # (N,) int64: the object that each place answers to most, -1 where to none
    pairs: Tensor | None  # (N,G): ``positive`` by objects, where a place may answer to several
    objects: Tensor  # (G,4)
    labels: Tensor  # (G,)
    valid: Tensor  # (G,) bool

    @property
    def numbers(self) -> list[int]:
        """The objects to be found (not padding, not crowds)."""
        return self.valid.nonzero().flatten().tolist()

    def of_object(self, number: int) -> ObjectView:
        """The places as object ``number`` sees them; a stage with one class knows it as that."""
        label = min(int(self.labels[number]), self.scores.shape[1] - 1)
        mine = self.index == number
        positive, regression, chosen = self.positive * mine, self.regression * mine, mine
        if self.pairs is not None:
            positive = self.pairs[:, number]
            regression = self.regression * positive / self._claimed
            chosen = (positive > 0) & (positive >= SHARE * positive.amax())
        overlap = geometry.iou(self.boxes, self.objects[number]).nan_to_num()
        score = self.scores[:, label].nan_to_num()
        negative = self.negative[:, label] if self.background is None else self.negative[:, label] + self.background
        return ObjectView(positive, negative, regression, score, overlap, chosen)

    def inside(self, number: int) -> Tensor:
        """Places whose center lies in object ``number``, (N,) bool."""
        return geometry.depth_inside(self._centers, self.objects[None, number : number + 1])[0, :, 0] > 0

    @cached_property
    def _centers(self) -> Tensor:
        return (self.priors[None, :, :2] + self.priors[None, :, 2:]) / 2

    @cached_property
    def _claimed(self) -> Tensor:
        """The positive weight of each place over all objects, (N,)."""
        return torch.zeros_like(self.positive) if self.pairs is None else self.pairs.sum(1).clamp(min=1e-30)

    @cached_property
    def nearest(self) -> tuple[Tensor, Tensor]:
        """The object that each predicted box overlaps most and their IoU, (N,) int64 and (N,); -1 and 0 where none."""
        return self._best_overlap(self.boxes)

    @cached_property
    def nearest_of_priors(self) -> tuple[Tensor, Tensor]:
        """The same of the priors in place of the predictions."""
        return self._best_overlap(self.priors)

    @cached_property
    def within(self) -> Tensor:
        """In how many objects the center of each place lies, (N,) int64: more than one makes it ambiguous."""
        count = torch.zeros_like(self.index)
        for part in self._chunks():
            depth = geometry.depth_inside(self._centers, self.objects[None, part])[0]
            count += ((depth > 0) & self.valid[part]).sum(1)
        return count

    def _best_overlap(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        best, owner = boxes.new_zeros(len(boxes)), torch.full_like(self.index, -1)
        for part in self._chunks():
            overlap = geometry.iou(boxes[:, None], self.objects[part]).nan_to_num()
            value, index = torch.where(self.valid[part], overlap, -1.0).max(1)
            owner = torch.where(value > best, index + part.start, owner)
            best = torch.maximum(best, value)
        return owner, best

    def _chunks(self) -> list[slice]:
        return object_chunks(4, len(self.boxes), len(self.objects))
