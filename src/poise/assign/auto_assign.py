"""AutoAssign: places weigh themselves (Zhu et al. 2020).

A place inside an object counts by how sure its prediction is and by a learned prior around the center of the
object's class; it is the less of a negative the better its box fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from poise.assign.center_priors import Bag, GaussianCenterPrior
from poise.assign.likelihood import TINY, CenteredBags, in_slices
from poise.boxes import giou
from poise.pairwise.chunks import object_chunks
from poise.pairwise.overlaps import best_overlap
from poise.pairwise.pairs import between, class_scores_of_pairs, pairs_inside
from poise.structures import GroundTruth, Predictions

TEMPORARIES = 8  # planes of pairs alive at once, against what streaming allows for


@dataclass(frozen=True)
class AutoAssign:
    """Soft assignment from predictions; ``bag`` is the center prior, mostly a head's ``CenterPrior``.

    Objects of one class that contain the same place both speak of its negative weight there: the one with the highest
    index wins. Places with predictions that are not finite get no positive weight.
    """

    reads: ClassVar[str] = "predictions"
    bag: Bag = GaussianCenterPrior(1.0)
    beta: float = 5.0  # weight of the box in the likelihood of a place
    sharpness: float = 3.0  # of the confidence weight, exp(sharpness * likelihood)

    def __post_init__(self) -> None:
        if min(self.beta, self.sharpness) < 0:
            raise ValueError(f"AutoAssign(beta={self.beta}, sharpness={self.sharpness}): none is negative")

    def __call__(self, predictions: Predictions, truth: GroundTruth) -> CenteredBags:
        priors, boxes, finite = predictions.priors, predictions.boxes.float(), predictions.finite()
        batch, places, classes = predictions.logits.shape
        slices = object_chunks(batch * TEMPORARIES, places, truth.labels.shape[1])

        def positives_of(part: slice) -> tuple[Tensor, Tensor, Tensor]:
            objects, labels = truth.boxes[:, part], truth.labels[:, part]
            pairs = pairs_inside(priors.centers, objects, truth.valid[:, part])
            pairs = pairs.only(pairs.of_places(finite))
            prior = self.bag(priors, objects, labels, pairs)
            score = class_scores_of_pairs(predictions, labels, pairs)
            likelihood = self._likelihood(score, pairs.of_places(boxes), pairs.of_objects(objects))
            weight = (self.sharpness * likelihood).exp() * prior * (likelihood > 0)
            weight = weight / pairs.of_objects(pairs.total(weight).clamp(min=TINY))
            return pairs.dense(weight.detach()), pairs.total(weight * likelihood), pairs.total(prior)

        weight, likelihood, mass = in_slices(positives_of, slices)
        negative = self._negative(predictions, truth, slices, classes)
        return CenteredBags(weight.transpose(1, 2), negative.transpose(1, 2), likelihood, mass)

    def _likelihood(self, score: Tensor, predicted: Tensor, wanted: Tensor) -> Tensor:
        """Class score * exp(-beta * GIoU loss) of every pair."""
        value = score * (-self.beta * (1 - giou(predicted, wanted))).exp()
        return torch.where(value.isfinite(), value, 0.0)

    @torch.no_grad()
    def _negative(self, predictions: Predictions, truth: GroundTruth, slices: list[slice], classes: int) -> Tensor:
        """(B,C,N): 1 outside the objects of a class, inside the less the better the place's box fits any object."""
        sureness = 1 / (1 - best_overlap(predictions.boxes, truth)).clamp(min=TINY)
        negative = sureness.new_ones(len(sureness), classes, sureness.shape[1])
        for part in slices:
            pairs = pairs_inside(predictions.priors.centers, truth.boxes[:, part], truth.valid[:, part])
            value = pairs.of_places(sureness)
            spread = between(value, -pairs.most(-value), pairs.most(value), pairs)
            pairs.tell_classes(1 - spread, truth.labels[:, part], negative)
        return negative
