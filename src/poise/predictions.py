"""Priors, the predictions of each kind of head, and detections.

Letters of shapes as in ``structures``: **B** images, **N** priors, **C** classes, **R** distribution bins,
**S** sampled priors, **K** detections.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

T = TypeVar("T", bound="Predictions")
PriorKind = Literal["cells", "regions", "queries"]


@dataclass(frozen=True)
class Priors:
    """Anchors, points, proposals or query references; a point is a box of one stride around it."""

    boxes: Tensor  # (1|B,N,4) xyxy pixels
    strides: Tensor  # (N,) float32 pixels, or (B,N) where they differ between images
    level_sizes: tuple[int, ...] = ()  # number of priors of each level, summing to N

    @property
    def centers(self) -> Tensor:
        """Centers (1|B,N,2), x and y in pixels."""
        return (self.boxes[..., :2] + self.boxes[..., 2:]) / 2

    @property
    def cells(self) -> Tensor:
        """Boxes (1|B,N,4) of one stride around the centers, independent of the sizes of the priors."""
        half = self.strides[..., None] / 2
        return torch.cat((self.centers - half, self.centers + half), -1)

    def within(self, sizes: Tensor) -> Tensor:
        """Return which centers lie inside the image, (B,N) bool; ``sizes`` (B,2) are heights and widths."""
        centers = self.centers
        return (centers[..., 0] < sizes[:, None, 1]) & (centers[..., 1] < sizes[:, None, 0])


@dataclass(frozen=True)
class Predictions:
    """Predictions of a head at every prior; subclasses add further outputs."""

    prior_kind: ClassVar[PriorKind] = "cells"  # what the priors are: cells of a grid, proposals, or decoder queries
    score_is_product: ClassVar[bool] = False  # whether the score is the product of two probabilities
    priors: Priors
    logits: Tensor  # (B,N,C) float32
    boxes: Tensor  # (B,N,4) float32 decoded, xyxy pixels

    def threshold_scores(self) -> Tensor:
        """Return the scores (B,N,C) in [0,1] that the score threshold and the selection before NMS compare."""
        return self.logits.sigmoid()

    def scores(self) -> Tensor:
        """Return the scores (B,N,C) in [0,1] of detections."""
        return self.threshold_scores()

    def log_scores(self) -> Tensor:
        """Return ln of the scores (B,N,C), with finite gradients also where a score underflows."""
        return logsigmoid(self.logits)

    def finite(self, index: Tensor | None = None) -> Tensor:
        """Return at which priors all predictions are finite, (B,N) bool; assigners match no other prior.

        Args:
            index: flat indices (P,) into B * N; the result is then (P,) bool for these priors alone.
        """
        means = []
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                value = value.detach()
                means.append(_mean(value if index is None else value.flatten(0, 1).index_select(0, index)[None]))
        finite = torch.stack(means).mul(0).sum(0) == 0  # 0 * inf and 0 * NaN are NaN
        return finite if index is None else finite[0]

    def float(self: T) -> T:
        """Return the predictions in float32 (the priors are unchanged)."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changes: dict[str, Any] = {name: value.float() for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **changes)

    def take(self: T, index: Tensor) -> T:
        """Return the predictions at the priors ``index`` (B,S)."""

        def gather(t: Tensor) -> Tensor:
            first = torch.arange(len(t), device=index.device)[:, None] * t.shape[1]
            return t.flatten(0, 1).index_select(0, (index + first).flatten()).view(*index.shape, *t.shape[2:])

        changes: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Priors):
                strides = value.strides.view(-1, value.strides.shape[-1])
                changes[f.name] = Priors(gather(value.boxes), gather(strides), (index.shape[1],))
            elif isinstance(value, Tensor):
                changes[f.name] = gather(value)
        return replace(self, **changes)


def _mean(value: Tensor) -> Tensor:
    """Reduce (B,N,...) to (B,N), finite where all elements are finite; a mean, unlike a sum, cannot overflow."""
    if value.ndim == 2:
        return value
    elements = value.flatten(2)
    factor = 0.5 ** (elements.shape[2] - 1).bit_length()  # a power of two, at most 1 / number of elements
    return elements @ elements.new_full((elements.shape[2],), factor)


@dataclass(frozen=True)
class DeltaPredictions(Predictions):
    """Predictions of an anchor head; the box loss supervises the encoded offsets."""

    deltas: Tensor  # (B,N,4) of a ``boxes.DeltaCoder``


@dataclass(frozen=True)
class QualityPredictions(Predictions):
    """Predictions with one more logit per prior (centerness, objectness, IoU) that multiplies the score."""

    score_is_product: ClassVar[bool] = True
    quality: Tensor  # (B,N) logit

    def scores(self) -> Tensor:
        return self.threshold_scores() * self.quality.sigmoid()[..., None]

    def log_scores(self) -> Tensor:
        return logsigmoid(self.logits) + logsigmoid(self.quality)[..., None]


@dataclass(frozen=True)
class JointPredictions(QualityPredictions):
    """``QualityPredictions`` whose threshold score is the product as well (DW)."""

    def threshold_scores(self) -> Tensor:
        return self.logits.sigmoid() * self.quality.sigmoid()[..., None]

    def scores(self) -> Tensor:
        return self.threshold_scores()


@dataclass(frozen=True)
class JointDeltaPredictions(JointPredictions):
    """``JointPredictions`` whose encoded offsets are supervised as well (YOLOX)."""

    deltas: Tensor  # (B,N,4) of a ``boxes.DeltaCoder``, from the cells of the priors


@dataclass(frozen=True)
class GeometricPredictions(QualityPredictions):
    """``QualityPredictions`` whose score is the geometric mean, sqrt(class * quality) (TOOD, PAA)."""

    score_is_product: ClassVar[bool] = False

    def threshold_scores(self) -> Tensor:
        return self.log_scores().exp()

    def scores(self) -> Tensor:
        return self.threshold_scores()

    def log_scores(self) -> Tensor:
        return super().log_scores() / 2


@dataclass(frozen=True)
class DistributionPredictions(Predictions):
    """Predictions whose box distances are the means of discrete distributions (GFL)."""

    bins: Tensor  # (B,N,4,R) logits over 0..R-1, in strides, sides l,t,r,b


@dataclass(frozen=True)
class JointDistributionPredictions(JointPredictions, DistributionPredictions):
    """Distributions, and a quality read from their shape that multiplies the score (GFLv2)."""


@dataclass(frozen=True)
class RefinedPredictions(Predictions):
    """Predictions of two boxes per prior: ``boxes`` are the refined ones."""

    initial_boxes: Tensor  # (B,N,4)


@dataclass(frozen=True)
class RegionPredictions(Predictions):
    """Predictions of a second stage: priors are proposals, classes are exclusive, offsets may differ by class."""

    prior_kind: ClassVar[PriorKind] = "regions"
    background: Tensor  # (B,N) logit of the background
    deltas: Tensor  # (B,N,C|1,4) of a ``boxes.DeltaCoder``; ``boxes`` are decoded from the best class's

    def threshold_scores(self) -> Tensor:
        return self.all_logits().softmax(-1)[..., :-1]

    def log_scores(self) -> Tensor:
        return self.all_logits().log_softmax(-1)[..., :-1]

    def all_logits(self) -> Tensor:
        """Return the logits (B,N,C+1), background last."""
        return torch.cat((self.logits, self.background[..., None]), -1)

    def deltas_of(self, labels: Tensor) -> Tensor:
        """Return the offsets (B,N,4) of the classes ``labels`` (B,N)."""
        index = labels.clamp(max=self.deltas.shape[2] - 1)  # class-agnostic offsets have one entry
        return self.deltas.gather(2, index[..., None, None].expand(-1, -1, 1, 4)).squeeze(2)


@dataclass(frozen=True)
class ObjectnessRegionPredictions(RegionPredictions):
    """``RegionPredictions`` with a softmax of the classes alone, times 1 - sigmoid(background) (Seesaw)."""

    def threshold_scores(self) -> Tensor:
        return self.log_scores().exp()

    def log_scores(self) -> Tensor:
        return self.logits.log_softmax(-1) + logsigmoid(-self.background)[..., None]


@dataclass(frozen=True)
class SigmoidRegionPredictions(RegionPredictions):
    """``RegionPredictions`` with a sigmoid of each class, times 1 - sigmoid(background) (EQL v2)."""

    def threshold_scores(self) -> Tensor:
        return self.log_scores().exp()

    def log_scores(self) -> Tensor:
        return logsigmoid(self.logits) + logsigmoid(-self.background)[..., None]


@dataclass(frozen=True)
class QueryPredictions(Predictions):
    """Predictions of decoder queries, with the normalized boxes that the decoder predicts and the L1 loss supervises.

    Priors are the references of the queries. Decoder layers are stacked along the batch dimension, first layer first:
    (L*B,N,...).
    """

    prior_kind: ClassVar[PriorKind] = "queries"
    normalized_boxes: Tensor  # (B,N,4) center x, y, width, height in units of the image's width and height


@dataclass(frozen=True)
class Detections:
    """The result of inference, padded to K detections per image, highest score first."""

    boxes: Tensor  # (B,K,4) xyxy pixels of the network's input
    scores: Tensor  # (B,K) in [0,1]
    labels: Tensor  # (B,K) int64
    valid: Tensor  # (B,K) bool

    def unpad(self) -> list[dict[str, Tensor]]:
        """Return one ``{"boxes","scores","labels"}`` per image, without the padding."""
        return [
            {"boxes": boxes[valid], "scores": scores[valid], "labels": labels[valid]}
            for boxes, scores, labels, valid in zip(self.boxes, self.scores, self.labels, self.valid, strict=True)
        ]
