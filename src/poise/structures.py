"""Data structures that flow between data, head, assigner and criterion.

Letters of shapes, for the whole library: **B** images, **N** priors (points, anchors, proposals or queries, all levels
concatenated: level-major, then row-major), **G** objects of an image after padding, **C** classes, **S** sampled
priors, **R** distribution bins, **K** detections.

All structures are frozen dataclasses of tensors. They share five conventions:

* ``Assignment.index`` is always safe to gather; masks, not sentinel values, mark positive and ignored priors.
* ``G >= 1``: the ground truth is padded, so that no tensor is empty.
* Heads concatenate their levels.
* ``Assignment.quality`` is defined for negatives too.
* Decoder layers are stacked along the batch dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, overload

import torch
from torch import Tensor

from poise.predictions import (
    DeltaPredictions,
    Detections,
    DistributionPredictions,
    GeometricPredictions,
    JointDeltaPredictions,
    JointDistributionPredictions,
    JointPredictions,
    ObjectnessRegionPredictions,
    Predictions,
    Priors,
    QualityPredictions,
    QueryPredictions,
    RefinedPredictions,
    RegionPredictions,
    SigmoidRegionPredictions,
)

if TYPE_CHECKING:
    from poise.protocols import LossFunction, WeighsLosses

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
    "ObjectnessRegionPredictions",
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
    "SigmoidRegionPredictions",
    "StepOutput",
    "value_at",
    "values_at",
    "map_tensors",
]

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")


def map_tensors(value: T, function: Callable[[Tensor], Tensor]) -> T:
    """Apply ``function`` to every tensor of a structure of this module, recursively."""
    if isinstance(value, Tensor):
        return function(value)  # type: ignore[return-value]  # a Tensor for a Tensor
    if isinstance(value, (GroundTruth, Priors, Predictions, Assignment, PairWeights, Sample, Batch, Detections)):
        return replace(value, **{f.name: map_tensors(getattr(value, f.name), function) for f in fields(value)})
    return value


@dataclass(frozen=True)
class GroundTruth:
    """Objects of a batch, padded to a common number.

    ``crowd`` objects are regions to ignore (COCO's ``iscrowd``, optionally VOC's ``difficult``, a target's ``ignore``):
    they are never ``valid``, so that no prior is assigned to them.
    """

    boxes: Tensor  # (B,G,4) float32, xyxy pixels of the network's input
    labels: Tensor  # (B,G) int64 in [0,C); 0 where padded
    valid: Tensor  # (B,G) bool, an object to detect
    crowd: Tensor  # (B,G) bool, a region to ignore
    sizes: Tensor  # (B,2) float32, height and width of each image before padding

    def padded_sizes(self, divisor: int = 32) -> Tensor:
        """Return height and width of each image after padding it alone to a multiple of ``divisor``, (B,2)."""
        return (self.sizes / divisor).ceil() * divisor

    def repeat(self, times: int) -> GroundTruth:
        """Return the ground truth of ``times`` copies of the batch (one for each stacked decoder layer)."""
        return map_tensors(self, lambda t: t.repeat(times, *[1] * (t.ndim - 1)))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> GroundTruth:
        """Copy all tensors to ``device``."""
        return map_tensors(self, lambda t: t.to(device, non_blocking=non_blocking))

    @staticmethod
    def collate(
        targets: Sequence[dict[str, Tensor]], sizes: Sequence[tuple[int, int]], multiple: int = 8
    ) -> GroundTruth:
        """Pad per-image targets to one batch.

        Args:
            targets: one dict per image with ``boxes`` (n,4) xyxy pixels, ``labels`` (n,) and optionally ``iscrowd``
                (n,) and ``ignore`` (n,), true for regions that are not objects.
            sizes: height and width of each image before padding.
            multiple: G is rounded up to a multiple of this, so that few shapes occur.
        """
        largest = max([len(target["labels"]) for target in targets], default=0)
        padded = max(multiple, -(-largest // multiple) * multiple)
        device = targets[0]["boxes"].device if targets else torch.device("cpu")
        count = len(targets)
        boxes = torch.zeros(count, padded, 4, device=device)
        labels = torch.zeros(count, padded, dtype=torch.int64, device=device)
        valid = torch.zeros(count, padded, dtype=torch.bool, device=device)
        crowd = torch.zeros(count, padded, dtype=torch.bool, device=device)
        for i, target in enumerate(targets):
            n = len(target["labels"])
            flags = [target[key].to(device).bool() for key in ("iscrowd", "ignore") if key in target]
            ignored = torch.stack(flags).any(0) if flags else torch.zeros(n, dtype=torch.bool, device=device)
            boxes[i, :n] = target["boxes"].reshape(-1, 4).float()
            labels[i, :n] = target["labels"].to(torch.int64)
            valid[i, :n] = ~ignored
            crowd[i, :n] = ignored
        extents = torch.tensor(sizes, dtype=torch.float32, device=device).reshape(-1, 2)
        return GroundTruth(boxes, labels, valid, crowd, extents)


@dataclass(frozen=True)
class Batch:
    """Input of a detector in training and evaluation."""

    pixels: Tensor  # (B,3,H,W) float32, normalized and padded at bottom and right
    truth: GroundTruth
    indices: Tensor  # (B,) int64, index of each image in its data set
    proposals: Detections | None = field(default=None, kw_only=True)  # for detectors without a region proposal network

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        return map_tensors(self, lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return map_tensors(self, lambda t: t.pin_memory())


@dataclass(frozen=True)
class Progress:
    """Progress of training, an argument of parts that change during training; no module stores it."""

    step: int = 0  # optimizer steps done
    epoch: int = 0  # epochs done
    fraction: float = 0.0  # of the whole training that is done, in [0,1]

    @staticmethod
    def final() -> Progress:
        """Return the progress after every switch of a schedule."""
        return Progress(step=1 << 40, epoch=1 << 20, fraction=1.0)


@dataclass(frozen=True)
class SwitchAtEpoch(Generic[T]):
    """A part that changes once: ``before`` during the first ``epoch`` epochs, ``after`` from then on."""

    before: T
    after: T
    epoch: int


def value_at(value: T | SwitchAtEpoch[T], progress: Progress) -> T:
    """Return ``value``, or the part that a ``SwitchAtEpoch`` selects at ``progress``."""
    if isinstance(value, SwitchAtEpoch):
        return value.after if progress.epoch >= value.epoch else value.before
    return value


def map_value(value: T | SwitchAtEpoch[T], function: Callable[[T], T]) -> T | SwitchAtEpoch[T]:
    """Return ``function`` of ``value``, or of both parts of a ``SwitchAtEpoch``."""
    if isinstance(value, SwitchAtEpoch):
        return SwitchAtEpoch(function(value.before), function(value.after), value.epoch)
    return function(value)


@overload
def values_at(progress: Progress, first: T | SwitchAtEpoch[T], second: U | SwitchAtEpoch[U], /) -> tuple[T, U]: ...
@overload
def values_at(
    progress: Progress, first: T | SwitchAtEpoch[T], second: U | SwitchAtEpoch[U], third: V | SwitchAtEpoch[V], /
) -> tuple[T, U, V]: ...
def values_at(progress: Progress, *values: object) -> tuple[object, ...]:
    """Return ``value_at`` of each of ``values``."""
    return tuple(map(partial(value_at, progress=progress), values))


@dataclass(frozen=True)
class Assignment:
    """The object that each prior is assigned to."""

    carries_gradient: ClassVar[bool] = False  # whether losses reach the predictions through the assignment
    index: Tensor  # (B,N) int64 into G, always safe to gather
    positive: Tensor  # (B,N) bool
    ignored: Tensor  # (B,N) bool, neither positive nor negative
    quality: Tensor  # (B,N) float32 in [0,1], the assigner's measure of each prior (in most assigners an IoU)

    @property
    def negative(self) -> Tensor:
        """Priors that are neither positive nor ignored, (B,N) bool."""
        return ~(self.positive | self.ignored)

    def boxes(self, truth: GroundTruth) -> Tensor:
        """Return the box of each prior's object, (B,N,4); an arbitrary box where not positive."""
        return truth.boxes.gather(1, self.index[..., None].expand(-1, -1, 4))

    def labels(self, truth: GroundTruth) -> Tensor:
        """Return the class of each prior's object, (B,N); an arbitrary class where not positive."""
        return truth.labels.gather(1, self.index)

    def class_targets(self, truth: GroundTruth, num_classes: int, label: Tensor | float = 1.0) -> Tensor:
        """Return class targets (B,N,C): ``label`` (B,N) at the object's class of positives, 0 elsewhere."""
        value = (self.positive * label).float()
        empty = torch.zeros(*value.shape, num_classes, device=value.device)
        return empty.scatter(2, self.labels(truth)[..., None], value[..., None])

    def take(self, index: Tensor) -> Assignment:
        """Return the assignment of the priors ``index`` (B,S)."""
        return map_tensors(self, lambda t: t.gather(1, index))

    def sampled(self, sample: Sample) -> Assignment:
        """Return the assignment of the sampled priors (B,S); masked ones are ignored."""
        taken = self.take(sample.index)
        return replace(taken, positive=taken.positive & sample.mask, ignored=taken.ignored | ~sample.mask)

    def hard(self, fraction: float = 0.0) -> Assignment:
        """Return the assignment itself; ``PairWeights.hard`` makes one of weights."""
        return self

    def pairs(self) -> Tensor | None:
        """Return None: a hard assignment has no weights of pairs."""
        return None


@dataclass(frozen=True)
class PairWeights:
    """A soft assignment: the positive weight of each (prior, object) pair, and the negative weight of each class.

    Where few of very many priors have positive weights, ``positive`` stores those of the listed priors alone.
    """

    carries_gradient: ClassVar[bool] = False  # whether losses reach the predictions through the assignment
    positive: Tensor  # (B,N,G) float32 >= 0; (B,K,G) of the priors ``prior_index``
    negative: Tensor  # (B,N,C) float32 >= 0
    prior_index: Tensor | None = field(default=None, kw_only=True)  # (B,K,G) int64 into N; None: all priors

    def pairs(self) -> Tensor:
        """Return the positive weights of all priors, (B,N,G)."""
        if self.prior_index is None:
            return self.positive
        batch, _, objects = self.positive.shape
        empty = self.positive.new_zeros(batch, self.negative.shape[1], objects)
        return empty.scatter_add(1, self.prior_index, self.positive)

    def hard(self, fraction: float = 0.0) -> Assignment:
        """Return the hard assignment: each prior to the object with the largest positive weight, if it is not 0.

        Args:
            fraction: weights below this fraction of the highest weight of the same object count as 0.
        """
        if fraction:
            weights = self.positive.detach()
            mask = weights >= fraction * weights.amax(1, keepdim=True)
            return replace(self, positive=torch.where(mask, weights, 0.0)).hard()
        weight, index = self.positive.max(2) if self.prior_index is None else self._max_by_prior(self.prior_index)
        positive = weight > 0
        scale = weight.amax(1, keepdim=True).clamp(min=1e-12)
        return Assignment(index, positive, torch.zeros_like(positive), (weight / scale).clamp(max=1))

    def _max_by_prior(self, prior_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest weight of each prior and its object, both (B,N); ties go to the lowest object."""
        batch, _, objects = self.positive.shape
        prior, weight = prior_index.flatten(1), self.positive.flatten(1)
        largest = weight.new_zeros(batch, self.negative.shape[1]).scatter_reduce(1, prior, weight, "amax")
        number = torch.arange(objects, device=prior.device).expand_as(prior_index).flatten(1)
        number = torch.where((weight > 0) & (weight == largest.gather(1, prior)), number, objects)
        index = torch.full_like(largest, objects, dtype=torch.int64).scatter_reduce(1, prior, number, "amin")
        return largest, torch.where(index < objects, index, 0)


@dataclass(frozen=True)
class Sample:
    """The priors that a sampler selects: a fixed number, with a mask."""

    index: Tensor  # (B,S) int64 into N
    mask: Tensor  # (B,S) bool, False where the image has fewer candidates


@dataclass(frozen=True)
class Match:
    """Predictions of one supervised stage, their assignment, and how the losses weigh it."""

    predictions: Predictions
    assignment: Assignment | PairWeights
    criterion: LossFunction | WeighsLosses | None = field(default=None, kw_only=True)  # the second: known to the lab
    sample: Sample | None = field(default=None, kw_only=True)  # priors that the losses use; None: all
    truth: GroundTruth | None = field(default=None, kw_only=True)  # targets, where they are not the batch's objects
    assigner: Callable[..., Assignment | PairWeights] | None = field(default=None, kw_only=True)  # read the predictions
    loss_factor: float = field(default=1.0, kw_only=True)  # by which the step multiplies the criterion's losses

    @property
    def nonfinite(self) -> Tensor:
        """Number of priors with a prediction that is not finite, scalar int64; none of them is matched."""
        return (~self.predictions.finite()).sum()


@dataclass(frozen=True)
class StepOutput:
    """Result of a training step: weighted scalar losses, whose sum is minimized, and the matches of all stages."""

    losses: dict[str, Tensor]
    matches: dict[str, Match] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """Sum of the losses."""
        return torch.stack(list(self.losses.values())).sum()

    @property
    def nonfinite(self) -> Tensor:
        """Number of nonfinite predictions of all stages, scalar int64."""
        zero = self.total.new_zeros((), dtype=torch.int64)
        return torch.stack([zero, *(match.nonfinite for match in self.matches.values())]).sum()
