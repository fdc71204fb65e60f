"""The seams between rooms: what a backbone, a neck, a head, an assigner, a criterion, a branch and a detector are.

A part of a user's own fits if it has these members; it needs no base class. Networks are ``torch.nn.Module``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor, nn

from poise.structures import (
    Assignment,
    Batch,
    Detections,
    GroundTruth,
    PairWeights,
    Predictions,
    Progress,
    StepOutput,
)


class Backbone(Protocol):
    """Maps normalized pixels (B,3,H,W) to feature maps (B,C_l,H/s_l,W/s_l), finest first."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels C_l of each map."""
        ...

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides s_l of each map, px."""
        ...

    def __call__(self, pixels: Tensor) -> list[Tensor]: ...

    def freeze_as_pretrained(self) -> None:
        """Apply the published frozen stages where none were given; called after loading weights."""
        ...


class Neck(Protocol):
    """Maps the feature maps of a backbone to a pyramid of maps (B,C,H_l,W_l), finest first."""

    def __call__(self, maps: list[Tensor]) -> list[Tensor]: ...


class Head(Protocol):
    """Maps pyramid maps to the predictions of all priors."""

    def __call__(self, maps: Sequence[Tensor]) -> Predictions: ...


class Assigner(Protocol):
    """Decides which object each prior is assigned to: ``(predictions, truth) -> Assignment | PairWeights``.

    An assigner is a frozen dataclass of its hyper-parameters with ``__call__``. It computes in float32 on padded truth,
    without loops over images or objects and without synchronizing host and device. Ties go to the **lowest index** (of
    the prior, then of the object) unless its docstring says otherwise. Priors with predictions that are not finite are
    never positive.
    """

    def __call__(self, predictions: Any, truth: GroundTruth) -> Assignment | PairWeights: ...


class HardAssigner(Protocol):
    """An ``Assigner`` that assigns each prior to one object at most."""

    def __call__(self, predictions: Any, truth: GroundTruth) -> Assignment: ...


@dataclass(frozen=True)
class LossWeights:
    """Weights of ``-ln p``, of ``-ln(1 - p)`` and of the elementwise box loss in the losses of one stage."""

    positive: Tensor  # (B,N,C) >= 0, of -ln p
    negative: Tensor  # (B,N,C) >= 0, of -ln(1 - p)
    regression: Tensor  # (B,N) >= 0, of the box loss (of the refined box, where a head predicts two)
    background: Tensor | None = None  # (B,N) >= 0, of -ln p(background), where a head predicts it separately
    pairs: Tensor | None = None  # (B,N,G) >= 0, ``positive`` by object, where a prior may have several objects

    @property
    def negatives(self) -> Tensor:
        """Negative weight of each prior, summed over all classes and the background, (B,N)."""
        total = self.negative.sum(2)
        return total if self.background is None else total + self.background

    def times(self, factor: float) -> LossWeights:
        """Weights of the same losses multiplied by ``factor``."""
        background = None if self.background is None else self.background * factor
        pairs = None if self.pairs is None else self.pairs * factor
        return LossWeights(self.positive * factor, self.negative * factor, self.regression * factor, background, pairs)


class LossFunction(Protocol):
    """``(predictions, assignment, truth) -> {name: weighted scalar}``.

    Each method reads predictions and an assignment of its own kind, hence ``Any``.
    """

    def __call__(self, predictions: Any, assignment: Any, truth: GroundTruth) -> dict[str, Tensor]:
        """Return the weighted loss terms by name."""
        ...


@runtime_checkable
class WeighsLosses(Protocol):
    """Reports the weights within losses, which the assignment lab shows."""

    def weights(self, predictions: Any, assignment: Any, truth: GroundTruth) -> LossWeights:
        """Return how much each prior counts in the losses."""
        ...


class Criterion(LossFunction, WeighsLosses, Protocol):
    """The losses of a method, and the weights within these losses."""


def with_weights(criterion: LossFunction | WeighsLosses | None) -> WeighsLosses | None:
    """Return the criterion if it reports the weights within its losses, or None."""
    return criterion if isinstance(criterion, WeighsLosses) else None


@runtime_checkable
class TracksClasses(Protocol):
    """Weights the classes of its loss, by what they have received so far, which the assignment lab shows."""

    def class_statistics(self) -> dict[str, Tensor]:
        """Return what was accumulated for each class and the weights that follow from it, (C,) each, by name."""
        ...


def class_statistics(criterion: object) -> dict[str, Tensor]:
    """Return the class statistics of a criterion; an empty dict of one that tracks none."""
    return criterion.class_statistics() if isinstance(criterion, TracksClasses) else {}


class Branch(Protocol):
    """A head (or two stages) with assigner, criterion and post-processing, on a pyramid of maps."""

    def __call__(self, maps: Sequence[Tensor], truth: GroundTruth, progress: Progress) -> StepOutput:
        """Return losses and matches."""
        ...

    def propose(self, maps: Sequence[Tensor], sizes: Tensor) -> Detections:
        """Return the proposals of the first stage, or the detections of a one-stage branch."""
        ...

    def predict(self, maps: Sequence[Tensor], sizes: Tensor) -> Detections:
        """Return detections of images of ``sizes`` (B,2), height and width before padding."""
        ...


class Detector(Protocol):
    """A network from pixels to losses, or to detections, both in training mode and in evaluation mode."""

    @property
    def needs_proposals(self) -> bool:
        """Whether proposals are an input (Fast R-CNN)."""
        ...

    def __call__(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return losses and matches of a batch."""
        ...

    def predict(self, pixels: Tensor, sizes: Tensor) -> Detections:
        """Return detections of normalized pixels (B,3,H,W) of images of ``sizes`` (B,2) before padding."""
        ...


if TYPE_CHECKING:  # a module with the members of a protocol: Python's types have no other word for both

    class BackboneModule(Backbone, nn.Module):
        """A ``Backbone`` that is a ``torch.nn.Module``."""

    class DetectorModule(Detector, nn.Module):
        """A ``Detector`` that is a ``torch.nn.Module``, the network of a ``DetectionModel``."""

        backbone: BackboneModule  # of networks that are trained; exported files have none
