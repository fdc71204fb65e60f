"""How much every place counts in the losses: what a criterion teaches, and the weights that follow from it.

A classification loss is a sum over places and classes of ``w_pos * -ln p + w_neg * -ln (1 - p)``, a box loss a sum
over places of ``w_reg * elementwise loss``. A criterion sums its losses with ``taught``; its ``weights`` divide the
same elementwise losses by their cross entropy. So no weight is written down twice.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from poise.criteria.protocol import masked_sum
from poise.pairwise.chunks import object_chunks
from poise.structures import GroundTruth

TEMPORARIES = 8  # planes of pairs alive at once, against what streaming allows for


class Taught(NamedTuple):
    """What places are taught, and what their elementwise losses are multiplied by (normalizers included)."""

    targets: Tensor  # (B,N,C) in [0,1], of the classes
    classes: Tensor  # (B,N) >= 0
    boxes: Tensor  # (B,N) >= 0

    def class_sum(self, loss: Tensor) -> Tensor:
        """The class term from elementwise losses (B,N,C)."""
        return masked_sum(loss.sum(2), self.classes)


@dataclass(frozen=True)
class LossWeights:
    """What the losses of a stage multiply ``-ln p``, ``-ln (1 - p)`` and the elementwise box loss by."""

    positive: Tensor  # (B,N,C) >= 0, of -ln p
    negative: Tensor  # (B,N,C) >= 0, of -ln (1 - p)
    regression: Tensor  # (B,N) >= 0, of the box loss (of the last box, where a head predicts two)
    background: Tensor | None = None  # (B,N) >= 0, of -ln p(nothing), where a head says that apart
    pairs: Tensor | None = None  # (B,N,G) >= 0: ``positive`` by objects, where a place may answer to several

    @property
    def negatives(self) -> Tensor:
        """The negative weight of each place over all classes and the background, (B,N)."""
        total = self.negative.sum(2)
        return total if self.background is None else total + self.background

    def times(self, factor: float) -> LossWeights:
        """The weights of the same losses times ``factor``."""
        parts = (getattr(self, f.name) for f in fields(self))
        return LossWeights(*(None if part is None else part * factor for part in parts))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Scaled:
    """Says the weights of a criterion whose losses somebody multiplies."""

    criterion: Any
    factor: float

    def weights(self, predictions: Any, assignment: Any, truth: GroundTruth) -> LossWeights:
        return self.criterion.weights(predictions, assignment, truth).times(self.factor)


def weights_of(taught: Taught, loss: Tensor, entropy: Tensor) -> LossWeights:
    """Weights of a loss that is a factor times the cross entropy with the targets; both (B,N,C)."""
    counted = (taught.classes[..., None] > 0) & (entropy > 0)
    factor = torch.where(counted, loss / entropy, 0.0) * taught.classes[..., None]
    return LossWeights(factor * taught.targets, factor * (1 - taught.targets), taught.boxes)


def weights_of_logits(taught: Taught, loss: Tensor, logits: Tensor) -> LossWeights:
    """The same where p = sigmoid(logits)."""
    return weights_of(taught, loss, binary_cross_entropy_with_logits(logits, taught.targets, reduction="none"))


def weights_of_classes(positive: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Pair weights (B,N,G) summed over the objects of each class, (B,N,C)."""
    batch, places, objects = positive.shape
    total = positive.new_zeros(batch, num_classes, places)
    for part in object_chunks(batch * TEMPORARIES, places, objects):
        weight = positive[..., part].transpose(1, 2)
        total = total.scatter_add(1, labels[:, part, None].expand_as(weight), weight)
    return total.transpose(1, 2)
