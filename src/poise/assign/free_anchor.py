"""FreeAnchor: each object learns which of its nearest anchors to match (Zhang et al. 2019).

An object's bag are the anchors that overlap it most. Its likelihood is the mean of what each anchor's class score and
box make likely, weighted toward the best (mean-max); a place is no negative of a class whose object its box finds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from poise.assign.likelihood import TINY, BagWeights
from poise.boxes import DeltaCoder
from poise.pairwise.chunks import object_chunks
from poise.pairwise.overlaps import Overlaps, overlaps_with
from poise.pairwise.pairs import ListedPairs, class_scores_of_pairs
from poise.structures import DeltaPredictions, GroundTruth, Predictions, Priors

TEMPORARIES = 4  # planes of pairs alive at once, against what streaming allows for


def lowest_first(found: Overlaps, count: int) -> Tensor:
    """Places (B,g,count) of each object's greatest overlaps, ties to the lowest index."""
    return found.largest(found.iou, count)[0]


def as_topk(found: Overlaps, count: int) -> Tensor:
    """The same with ties as torch's ``topk`` leaves them, on which the original's numbers depend."""
    return found.dense(found.iou).topk(count, -1, sorted=False).indices


@dataclass(frozen=True)
class FreeAnchor:
    """Soft assignment from anchors and predictions; ``positive`` lists the ``topk`` places of each bag.

    Every anchor may be in a bag, also beyond an image's padding. Places with predictions that are not finite get no
    positive weight, and their boxes find nothing. Of heads that predict no offsets, those of their boxes are taken.
    """

    reads: ClassVar[str] = "predictions"
    topk: int = 50  # anchors in a bag
    choose: Callable[[Overlaps, int], Tensor] = lowest_first  # those with the greatest IoU
    threshold: float = 0.6  # IoU above which a box begins to find an object
    coder: DeltaCoder = DeltaCoder((0.1, 0.1, 0.2, 0.2))
    beta: float = 0.11  # of the smooth L1 loss of offsets
    box_weight: float = 0.75  # of that loss in the likelihood of a place

    def __post_init__(self) -> None:
        if self.topk < 1 or not 0 <= self.threshold < 1 or self.beta <= 0 or self.box_weight < 0:
            raise ValueError(
                f"{self}: topk is at least 1, 0 <= threshold < 1, beta is positive, box_weight not negative"
            )

    def __call__(self, predictions: Predictions, truth: GroundTruth) -> BagWeights:
        place = self._bags(predictions.priors, truth)
        likelihood = self._likelihood(predictions, truth, place)
        finite = predictions.finite()
        usable = finite.gather(1, place.flatten(1)).view_as(place) & truth.valid[..., None] & likelihood.isfinite()
        likelihood = torch.where(usable, likelihood, 0.0)
        weight = torch.where(usable, 1 / (1 - likelihood).clamp(min=TINY), 0.0)
        weight = weight / weight.sum(2, keepdim=True).clamp(min=TINY)
        return BagWeights(
            weight.detach().transpose(1, 2),
            self._negative(predictions, finite, truth),
            (weight * likelihood).sum(2),
            truth.valid.float() * place.shape[2],
            prior_index=place.transpose(1, 2),
        )

    @torch.no_grad()
    def _bags(self, priors: Priors, truth: GroundTruth) -> Tensor:
        """The places of each object's bag, (B,G,K)."""
        bags, overlaps = [], overlaps_with(priors.boxes)
        places, objects = len(priors.strides), truth.boxes.shape[1]
        for part in object_chunks(len(truth.boxes) * TEMPORARIES, places, objects):
            found = overlaps(truth.boxes[:, part], torch.ones_like(truth.valid[:, part]))
            bags.append(self.choose(found, min(self.topk, places)))
        return torch.cat(bags, 1)

    def _likelihood(self, predictions: Predictions, truth: GroundTruth, place: Tensor) -> Tensor:
        """Class score * exp(-box loss) of each place of each bag, (B,G,K)."""
        pairs = ListedPairs.of_bags(place, predictions.boxes.shape[1])
        score = class_scores_of_pairs(predictions, truth.labels, pairs)
        wanted = self.coder.encode(pairs.of_places(predictions.priors.boxes.float()), pairs.of_objects(truth.boxes))
        loss = smooth_l1_loss(pairs.of_places(self._offsets(predictions)), wanted, reduction="none", beta=self.beta)
        return (score * (-self.box_weight * loss.sum(1)).exp()).view_as(place)

    def _offsets(self, predictions: Predictions) -> Tensor:
        if isinstance(predictions, DeltaPredictions):
            return predictions.deltas.float()
        return self.coder.encode(predictions.priors.boxes.float(), predictions.boxes.float())

    @torch.no_grad()
    def _negative(self, predictions: Predictions, finite: Tensor, truth: GroundTruth) -> Tensor:
        """(B,N,C): 1 minus how surely the place's box finds an object of the class."""
        batch, places, classes = predictions.logits.shape
        negative = torch.ones(batch, classes, places, device=finite.device)
        overlaps = overlaps_with(predictions.boxes, finite)
        for part in object_chunks(batch * TEMPORARIES, places, truth.boxes.shape[1]):
            found = overlaps(truth.boxes[:, part], truth.valid[:, part])
            most = found.object_most(found.iou)
            most = found.of_objects(torch.where(most > self.threshold, most, torch.inf))
            sureness = ((found.iou - self.threshold) / (most - self.threshold)).clamp_(0, 1)
            found.lower_classes(1 - sureness, truth.labels[:, part], negative)
        return negative.transpose(1, 2)
