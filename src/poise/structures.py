"""The nouns of poise: what flows between data, head, assigner and criterion.

Letters, once for the whole library: **B** images, **N** places (points, anchors, proposals or
queries, all levels concatenated level-major, then row-major), **G** padded objects, **C** classes,
**S** sampled places, **R** distribution bins, **K** detections.

All of them are frozen dataclasses of tensors. Five choices carry the rest:

* ``Assignment.index`` is always safe to gather; what a place *is* stands in masks, not in sentinels.
* ``G >= 1``: the truth is padded, so no empty tensor exists.
* Levels are concatenated at the head's mouth.
* ``Assignment.quality`` is defined for negatives too.
* Decoder layers are more batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from poise.predictions import (
    DeltaPredictions,
    DistributionPredictions,
    GeometricPredictions,
    JointDeltaPredictions,
    JointDistributionPredictions,
    JointPredictions,
    Predictions,
    Priors,
    QualityPredictions,
    QueryPredictions,
    RefinedPredictions,
    RegionPredictions,
)

__all__ = [
    "Assignment",
    "Batch",
    "DeltaPredictions",
    "Detections",
    "DistributionPredictions",
    "GeometricPredictions",
    "GroundTruth",
    "JointDeltaPredictions",
    "JointDistributionPredictions",
    "JointPredictions",
    "Match",
    "PairWeights",
    "SwitchAtEpoch",
    "Predictions",
    "Priors",
    "Progress",
    "QualityPredictions",
    "QueryPredictions",
    "RefinedPredictions",
    "RegionPredictions",
    "Sample",
    "StepOutput",
    "value_at",
    "map_tensors",
]

T = TypeVar("T")


def map_tensors(value: T, function: Any) -> T:
    """Apply ``function`` to every tensor of a (nested) structure of this module."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, (GroundTruth, Priors, Predictions, Assignment, PairWeights, Sample, Batch, Detections)):
        return replace(value, **{f.name: map_tensors(getattr(value, f.name), function) for f in fields(value)})
    return value


@dataclass(frozen=True)
class GroundTruth:
    """Objects of a batch, padded to a common number.

    ``crowd`` objects are regions to leave alone (COCO's ``iscrowd``, VOC's ``difficult`` where asked,
    a target's ``ignore``): they are never ``valid`` and so never positive.
    """

    boxes: Tensor  # (B,G,4) float32, xyxy pixels of the network's input
    labels: Tensor  # (B,G) int64 in [0,C); 0 where padded
    valid: Tensor  # (B,G) bool, an object to be found
    crowd: Tensor  # (B,G) bool, a region to ignore
    sizes: Tensor  # (B,2) float32, height and width of each image before padding

    @property
    def num_objects(self) -> Tensor:
        """Objects of each image, (B,) float32."""
        return self.valid.sum(1).float()

    def padded_sizes(self, divisor: int = 32) -> Tensor:
        """Height and width of each image after its own padding to ``divisor``, (B,2)."""
        return (self.sizes / divisor).ceil() * divisor

    def repeat(self, times: int) -> GroundTruth:
        """The same truth for ``times`` stacked copies of the batch (decoder layers are more batch)."""
        return map_tensors(self, lambda t: t.repeat(times, *[1] * (t.ndim - 1)))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> GroundTruth:
        return map_tensors(self, lambda t: t.to(device, non_blocking=non_blocking))

    @staticmethod
    def collate(
        targets: Sequence[dict[str, Tensor]],
        sizes: Sequence[tuple[int, int]],
        multiple: int = 8,
    ) -> GroundTruth:
        """Pad per-image targets to one batch.

        Args:
            targets: one dict an image with ``boxes`` (n,4) xyxy pixels, ``labels`` (n,) and, if wanted,
                ``iscrowd`` (n,) and ``ignore`` (n,), truthy for regions that are not objects.
            sizes: height and width of each image before padding.
            multiple: G is rounded up to this, so that few shapes occur.
        """
        most = max([len(target["labels"]) for target in targets], default=0)
        padded = max(multiple, -(-most // multiple) * multiple)
        device = targets[0]["boxes"].device if targets else torch.device("cpu")
        count = len(targets)
        boxes = torch.zeros(count, padded, 4, device=device)
        labels = torch.zeros(count, padded, dtype=torch.int64, device=device)
        valid = torch.zeros(count, padded, dtype=torch.bool, device=device)
        crowd = torch.zeros(count, padded, dtype=torch.bool, device=device)
        for i, target in enumerate(targets):
            n = len(target["labels"])
            skipped = torch.zeros(n, dtype=torch.bool, device=device)
            for key in ("iscrowd", "ignore"):
                if key in target:
                    skipped = skipped | target[key].to(device).bool()
            boxes[i, :n] = target["boxes"].reshape(-1, 4).float()
            labels[i, :n] = target["labels"].to(torch.int64)
            valid[i, :n] = ~skipped
            crowd[i, :n] = skipped
        extents = torch.tensor(sizes, dtype=torch.float32, device=device).reshape(-1, 2)
        return GroundTruth(boxes, labels, valid, crowd, extents)


@dataclass(frozen=True)
class Batch:
    """What the engine hands to a detector."""

    pixels: Tensor  # (B,3,H,W) float32, normalized and padded at bottom and right
    truth: GroundTruth
    indices: Tensor  # (B,) int64, position of each image in its dataset (names the image in messages)
    proposals: Detections | None = field(default=None, kw_only=True)  # given regions, for detectors that propose none

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        return map_tensors(self, lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return map_tensors(self, lambda t: t.pin_memory())


@dataclass(frozen=True)
class Progress:
    """Where training stands; handed to what changes during training, never stored in a module."""

    step: int = 0  # optimizer steps done
    epoch: int = 0  # epochs done

    @staticmethod
    def final() -> Progress:
        """Past every switch that a schedule may hold: the form in which a model is finally trained."""
        return Progress(step=1 << 40, epoch=1 << 20)


@dataclass(frozen=True)
class SwitchAtEpoch:
    """A part that is replaced once: ``before`` for the first ``epoch`` epochs, ``after`` from then on."""

    before: Any
    after: Any
    epoch: int


def value_at(value: Any, progress: Progress) -> Any:
    """The part in force at ``progress``."""
    if isinstance(value, SwitchAtEpoch):
        return value.after if progress.epoch >= value.epoch else value.before
    return value


@dataclass(frozen=True)
class Assignment:
    """Which object each place answers to."""

    index: Tensor  # (B,N) int64 into G, always safe to gather
    positive: Tensor  # (B,N) bool
    ignored: Tensor  # (B,N) bool, neither positive nor negative
    quality: Tensor  # (B,N) float32 in [0,1]: the assigner's word on how good the place is (an IoU, mostly)

    @property
    def negative(self) -> Tensor:
        return ~(self.positive | self.ignored)

    def boxes(self, truth: GroundTruth) -> Tensor:
        """Box of each place's object, (B,N,4); of an arbitrary object where not positive."""
        return truth.boxes.gather(1, self.index[..., None].expand(-1, -1, 4))

    def labels(self, truth: GroundTruth) -> Tensor:
        """Class of each place's object, (B,N)."""
        return truth.labels.gather(1, self.index)

    def class_targets(self, truth: GroundTruth, num_classes: int, quality: Tensor | float = 1.0) -> Tensor:
        """(B,N,C): ``quality`` (B,N) at the object's class of positives, 0 elsewhere."""
        value = (self.positive * quality).float()
        empty = torch.zeros(*value.shape, num_classes, device=value.device)
        return empty.scatter(2, self.labels(truth)[..., None], value[..., None])

    def take(self, index: Tensor) -> Assignment:
        return map_tensors(self, lambda t: t.gather(1, index))


@dataclass(frozen=True)
class PairWeights:
    """A soft assignment: how much each place counts as positive for each object, and as negative for each class.

    Where an object's places are few of very many, ``positive`` lists them alone.
    """

    positive: Tensor  # (B,N,G) float32 >= 0; (B,K,G) of the ``prior_index``
    negative: Tensor  # (B,N,C) float32 >= 0
    prior_index: Tensor | None = field(default=None, kw_only=True)  # (B,K,G) int64 into N, those listed; None: all

    def pairs(self) -> Tensor:
        """The positive weights of all places, (B,N,G)."""
        if self.prior_index is None:
            return self.positive
        batch, _, objects = self.positive.shape
        empty = self.positive.new_zeros(batch, self.negative.shape[1], objects)
        return empty.scatter_add(1, self.prior_index, self.positive)

    def hard(self) -> Assignment:
        """The nearest ``Assignment``: the object with the greatest weight, where there is any."""
        weight, index = self.positive.max(2) if self.prior_index is None else self._greatest(self.prior_index)
        positive = weight > 0
        scale = weight.amax(1, keepdim=True).clamp(min=1e-12)
        return Assignment(index, positive, torch.zeros_like(positive), (weight / scale).clamp(max=1))

    def _greatest(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Greatest weight of each place and its object, both (B,N), without writing out all pairs."""
        batch, _, objects = self.positive.shape
        place, weight = places.flatten(1), self.positive.flatten(1)
        best = weight.new_zeros(batch, self.negative.shape[1]).scatter_reduce(1, place, weight, "amax")
        owner = torch.arange(objects, device=place.device).expand_as(places).flatten(1)
        owner = torch.where((weight > 0) & (weight == best.gather(1, place)), owner, objects)
        index = torch.full_like(best, objects, dtype=torch.int64).scatter_reduce(1, place, owner, "amin")
        return best, torch.where(index < objects, index, 0)


@dataclass(frozen=True)
class Sample:
    """What a sampler keeps: fixed size, with a mask."""

    index: Tensor  # (B,S) int64 into N
    mask: Tensor  # (B,S) bool


@dataclass(frozen=True)
class Match:
    """One supervised stage: what was predicted and what it was told."""

    predictions: Predictions
    assignment: Assignment | PairWeights
    criterion: Any = field(default=None, kw_only=True)  # what weighed it, where the stage says so
    sample: Sample | None = field(default=None, kw_only=True)  # the places that were weighed; None: all
    truth: GroundTruth | None = field(default=None, kw_only=True)  # what was taught, where not the batch's objects

    @property
    def nonfinite(self) -> Tensor:
        """Places of which something predicted is not a finite number (none of them is matched), scalar int64."""
        return (~self.predictions.finite()).sum()


@dataclass(frozen=True)
class StepOutput:
    """The result of a training step: weighted scalar losses (their sum is minimized) and what caused them."""

    losses: dict[str, Tensor]
    matches: dict[str, Match] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        return torch.stack(list(self.losses.values())).sum()

    @property
    def nonfinite(self) -> Tensor:
        """The same of all stages together."""
        none = self.total.new_zeros((), dtype=torch.int64)
        return torch.stack([none, *(match.nonfinite for match in self.matches.values())]).sum()


@dataclass(frozen=True)
class Detections:
    """The result of inference, padded to K an image, best first."""

    boxes: Tensor  # (B,K,4) xyxy pixels of the network's input
    scores: Tensor  # (B,K) in [0,1]
    labels: Tensor  # (B,K) int64
    valid: Tensor  # (B,K) bool

    def unpad(self) -> list[dict[str, Tensor]]:
        """One ``{"boxes","scores","labels"}`` an image, without the padding."""
        return [
            {"boxes": boxes[keep], "scores": scores[keep], "labels": labels[keep]}
            for boxes, scores, labels, keep in zip(self.boxes, self.scores, self.labels, self.valid, strict=True)
        ]
