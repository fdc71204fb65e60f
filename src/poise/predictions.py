"""What heads say: priors, predictions, and the kinds of predictions that heads of several methods give.

Letters as in ``structures``: **B** images, **N** places, **C** classes, **R** distribution bins, **S** sampled places.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

T = TypeVar("T", bound="Predictions")


@dataclass(frozen=True)
class Priors:
    """Where predictions are made. A point is a box of one stride around it."""

    boxes: Tensor  # (1|B,N,4) xyxy pixels
    strides: Tensor  # (N,) float32, or image by image (B,N)
    level_sizes: tuple[int, ...] = ()  # places of each level, summing to N

    @property
    def centers(self) -> Tensor:
        """(1|B,N,2) x, y in pixels."""
        return (self.boxes[..., :2] + self.boxes[..., 2:]) / 2

    @property
    def cells(self) -> Tensor:
        """(1|B,N,4) boxes of one stride around the centers, whatever the size of the priors."""
        half = self.strides[..., None] / 2
        return torch.cat((self.centers - half, self.centers + half), -1)

    def within(self, sizes: Tensor) -> Tensor:
        """Which centers lie inside (B,2) heights and widths, (B,N) bool."""
        centers = self.centers
        return (centers[..., 0] < sizes[:, None, 1]) & (centers[..., 1] < sizes[:, None, 0])


@dataclass(frozen=True)
class Predictions:
    """What a head says of every place. Kinds of heads add what they have."""

    priors: Priors
    logits: Tensor  # (B,N,C) float32
    boxes: Tensor  # (B,N,4) float32 decoded, xyxy pixels

    def threshold_scores(self) -> Tensor:
        """(B,N,C) in [0,1]: what the score threshold and the pre-NMS selection read."""
        return self.logits.sigmoid()

    def scores(self) -> Tensor:
        """(B,N,C) in [0,1]: what inference ranks by."""
        return self.threshold_scores()

    def finite(self, among: Tensor | None = None) -> Tensor:
        """Places of which everything said is a finite number, (B,N) bool; no other place is ever matched.

        Args:
            among: (P,) into B * N, the places that are asked about; then (P,) bool.
        """
        said = [value.detach() for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)]
        if among is not None:
            said = [value.flatten(0, 1).index_select(0, among)[None] for value in said]
        found = torch.stack([_mean(value) for value in said]).mul(0).sum(0) == 0  # 0 times what is not finite is not 0
        return found if among is None else found[0]

    def float(self: T) -> T:
        """The same in float32, but for the priors."""
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        changes: dict[str, Any] = {name: value.float() for name, value in said.items() if isinstance(value, Tensor)}
        return replace(self, **changes)

    def take(self: T, index: Tensor) -> T:
        """Only the places ``index`` (B,S)."""

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


def _mean(said: Tensor) -> Tensor:
    """A number (B,N) that is finite where all of (B,N,...) are, in one pass: a mean cannot overflow."""
    if said.ndim == 2:
        return said
    numbers = said.flatten(2)
    share = 0.5 ** (numbers.shape[2] - 1).bit_length()
    return numbers @ numbers.new_full((numbers.shape[2],), share)


@dataclass(frozen=True)
class DeltaPredictions(Predictions):
    """An anchor head: the encoded offsets are what is supervised."""

    deltas: Tensor  # (B,N,4) of a ``boxes.DeltaCoder``


@dataclass(frozen=True)
class QualityPredictions(Predictions):
    """A head with one more logit a place (centerness, objectness, IoU) that multiplies the score."""

    quality: Tensor  # (B,N) logit

    def scores(self) -> Tensor:
        return self.threshold_scores() * self.quality.sigmoid()[..., None]


@dataclass(frozen=True)
class JointPredictions(QualityPredictions):
    """As above, where the threshold too reads the product (DW, AutoAssign's training score)."""

    def threshold_scores(self) -> Tensor:
        return self.logits.sigmoid() * self.quality.sigmoid()[..., None]

    def scores(self) -> Tensor:
        return self.threshold_scores()


@dataclass(frozen=True)
class JointDeltaPredictions(JointPredictions):
    """As above, where the encoded offsets are supervised too (YOLOX)."""

    deltas: Tensor  # (B,N,4) of a ``boxes.DeltaCoder``, from the cells of the priors


@dataclass(frozen=True)
class GeometricPredictions(QualityPredictions):
    """As above with the geometric mean of both, sqrt(class * quality) (TOOD, PAA)."""

    def threshold_scores(self) -> Tensor:
        return self.log_scores().exp()

    def scores(self) -> Tensor:
        return self.threshold_scores()

    def log_scores(self) -> Tensor:
        """(B,N,C), exact and with finite gradients also where the score underflows."""
        return (logsigmoid(self.logits) + logsigmoid(self.quality)[..., None]) / 2


@dataclass(frozen=True)
class DistributionPredictions(Predictions):
    """A head whose distances are the means of discrete distributions (GFL)."""

    bins: Tensor  # (B,N,4,R) logits over 0..R-1, in strides, sides l,t,r,b


@dataclass(frozen=True)
class JointDistributionPredictions(JointPredictions, DistributionPredictions):
    """A head of distributions whose shapes say how good the box is, which multiplies the score (GFLv2)."""


@dataclass(frozen=True)
class RefinedPredictions(Predictions):
    """A head that predicts twice: ``boxes`` are the refined ones."""

    initial_boxes: Tensor  # (B,N,4)


@dataclass(frozen=True)
class RegionPredictions(Predictions):
    """A second stage: priors are proposals, classes exclude one another, offsets may be each class's own."""

    background: Tensor  # (B,N) logit of no class at all
    deltas: Tensor  # (B,N,C|1,4) of a ``boxes.DeltaCoder``; ``boxes`` are those of the best class

    def threshold_scores(self) -> Tensor:
        return self.all_logits().softmax(-1)[..., :-1]

    def all_logits(self) -> Tensor:
        """(B,N,C+1), background last."""
        return torch.cat((self.logits, self.background[..., None]), -1)

    def deltas_of(self, labels: Tensor) -> Tensor:
        """Offsets (B,N,4) of the given classes (B,N)."""
        index = labels.clamp(max=self.deltas.shape[2] - 1)  # class-agnostic offsets have one entry
        return self.deltas.gather(2, index[..., None, None].expand(-1, -1, 1, 4)).squeeze(2)


@dataclass(frozen=True)
class QueryPredictions(Predictions):
    """A decoder's answers: boxes also as shares of the image, as they are predicted and taught.

    Priors are the queries' references. Decoder layers are more batch: (L*B,N,...), the first layer first.
    """

    normalized_boxes: Tensor  # (B,N,4) center x, y, width, height in units of the image's width and height
