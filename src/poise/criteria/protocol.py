"""The interface of criteria, and the weights that they report.

A criterion is a frozen dataclass that turns predictions and their assignment into a few named scalars. Each scalar is
weighted (a training step minimizes their sum), has the name it has in the original code, is finite for finite inputs,
and stays attached to the autograd graph when there are no positives: priors that do not count are masked, never
indexed away.

A classification loss is a sum over priors and classes of ``w_pos * -ln p + w_neg * -ln(1 - p)``, a box loss a sum over
priors of ``w_box * elementwise loss``. ``Criterion.targets`` gives the class targets and the weights of the
elementwise losses. ``Criterion.weights`` derives ``w_pos``, ``w_neg`` and ``w_box`` from the same targets, by dividing
the elementwise losses by their cross entropy, so that no weight is written twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from poise.criteria.matched_labels import labels_of
from poise.criteria.object_balance import balance_objects
from poise.protocols import LossWeights
from poise.structures import Assignment, GroundTruth


class Targets(NamedTuple):
    """Class targets, and the weights of the elementwise losses (normalizers included)."""

    class_targets: Tensor  # (B,N,C) in [0,1]
    class_weights: Tensor  # (B,N) >= 0, of the classification loss
    box_weights: Tensor  # (B,N) >= 0, of the box loss

    def balanced(self, assignment: Assignment, truth: GroundTruth, exponent: float) -> Targets:
        """Return the same with the weights of objects balanced (``poise.criteria.object_balance``)."""
        classes, boxes = (
            balance_objects(weights, assignment, truth, exponent) for weights in (self.class_weights, self.box_weights)
        )
        return self._replace(class_weights=classes, box_weights=boxes)


def loss_weights(targets: Targets, loss: Tensor, entropy: Tensor) -> LossWeights:
    """Return the weights of a classification loss that is a factor times the cross entropy with its targets.

    Args:
        targets: class targets and weights.
        loss: elementwise loss (B,N,C).
        entropy: cross entropy with the targets (B,N,C).
    """
    counted = (targets.class_weights[..., None] > 0) & (entropy > 0)
    factor = torch.where(counted, loss / entropy, 0.0) * targets.class_weights[..., None]
    return LossWeights(factor * targets.class_targets, factor * (1 - targets.class_targets), targets.box_weights)


def loss_weights_from_logits(targets: Targets, loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor) -> LossWeights:
    """Return ``loss_weights`` of an elementwise loss of logits and targets, where p = sigmoid(logits)."""
    labels = labels_of(loss, logits, targets.class_targets)
    entropy = binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return loss_weights(targets._replace(class_targets=labels), loss(logits, targets.class_targets), entropy)
