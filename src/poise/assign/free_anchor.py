"""FreeAnchor: each object learns which of its nearest anchors to match (Zhang et al. 2019).

The bag of an object are the anchors with the highest IoU. Its likelihood is the mean-max of the products of class
score and box likelihood; an anchor is no negative of a class if its box finds an object of the class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from poise.assign.likelihood import BagWeights
from poise.boxes import DeltaCoder
from poise.pairwise import TINY, Pairs, chunks_of_objects, from_index, overlapping
from poise.structures import DeltaPredictions, GroundTruth, Predictions, Priors


def lowest_first(pairs: Pairs, iou: Tensor, count: int) -> Tensor:
    """Priors (B,g,count) of each object's highest IoUs, ties to the lowest index."""
    return pairs.topk_by_object(iou, count)[1]


def as_topk(pairs: Pairs, iou: Tensor, count: int) -> Tensor:
    """The same with the ties of ``torch.topk``, on which the original's numbers depend."""
    return pairs.to_dense(iou).topk(count, -1, sorted=False).indices


def offsets_of_boxes(predictions: Predictions, coder: DeltaCoder) -> Tensor:
    """Encode the predicted boxes of any head, (B,N,4)."""
    return coder.encode(predictions.priors.boxes.float(), predictions.boxes.float())


def offsets_of_head(predictions: Predictions, coder: DeltaCoder) -> Tensor:
    """Return the offsets that an anchor head predicts, (B,N,4); they are encoded by ``coder``."""
    if isinstance(predictions, DeltaPredictions):
        return predictions.deltas.float()
    return offsets_of_boxes(predictions, coder)


@dataclass(frozen=True)
class FreeAnchor:
    """Soft assignment from anchors and predictions; ``positive`` lists the ``topk`` anchors of each bag.

    Anchors beyond an image's padding may be in a bag. Anchors with predictions that are not finite have no positive
    weight, and their boxes find nothing.
    """

    topk: int = 50  # anchors in a bag
    choose: Callable[[Pairs, Tensor, int], Tensor] = lowest_first  # those with the highest IoU
    threshold: float = 0.6  # IoU above which a box begins to find an object
    coder: DeltaCoder = DeltaCoder((0.1, 0.1, 0.2, 0.2))
    beta: float = 0.11  # of the smooth L1 loss of offsets
    box_weight: float = 0.75  # of that loss in the likelihood of an anchor
    offsets: Callable[[Predictions, DeltaCoder], Tensor] = offsets_of_boxes  # or ``offsets_of_head``

    def __post_init__(self) -> None:
        if self.topk < 1 or not 0 <= self.threshold < 1 or self.beta <= 0 or self.box_weight < 0:
            raise ValueError(
                f"{self}: topk is at least 1, 0 <= threshold < 1, beta is positive, box_weight not negative"
            )

    def __call__(self, predictions: Predictions, truth: GroundTruth) -> BagWeights:
        bag, finite = self.bags(predictions.priors, truth), predictions.finite()
        likelihood = self.likelihoods(predictions, truth, bag)
        usable = finite.gather(1, bag.flatten(1)).view_as(bag) & truth.valid[..., None] & likelihood.isfinite()
        likelihood = torch.where(usable, likelihood, 0.0)
        weight = torch.where(usable, 1 / (1 - likelihood).clamp(min=TINY), 0.0)  # mean-max, eq. 6
        weight = weight / weight.sum(2, keepdim=True).clamp(min=TINY)
        return BagWeights(
            weight.detach().transpose(1, 2),
            self._negative(predictions, finite, truth),
            (weight * likelihood).sum(2),
            truth.valid.float() * bag.shape[2],
            prior_index=bag.transpose(1, 2),
        )

    @torch.no_grad()
    def bags(self, priors: Priors, truth: GroundTruth) -> Tensor:
        """The anchors of each object's bag, (B,G,K)."""
        count = len(priors.strides)
        chunks = (overlapping(priors.boxes, objects) for objects in chunks_of_objects(truth, count, planes_alive=4))
        return torch.cat([self.choose(pairs, iou, min(self.topk, count)) for pairs, iou in chunks], 1)

    def likelihoods(self, predictions: Predictions, truth: GroundTruth, bag: Tensor) -> Tensor:
        """Class score * exp(-box loss) of each anchor of each bag, (B,G,K)."""
        pairs = from_index(bag, predictions.boxes.shape[1])
        score = pairs.class_scores(predictions, truth.labels)
        target = self.coder.encode(pairs.from_priors(predictions.priors.boxes.float()), pairs.from_objects(truth.boxes))
        offsets = self.offsets(predictions, self.coder)
        loss = smooth_l1_loss(pairs.from_priors(offsets), target, reduction="none", beta=self.beta)
        return (score * (-self.box_weight * loss.sum(1)).exp()).view_as(bag)

    @torch.no_grad()
    def _negative(self, predictions: Predictions, finite: Tensor, truth: GroundTruth) -> Tensor:
        """1 - the likelihood that the anchor's box finds an object of the class, (B,N,C)."""
        batch, count, classes = predictions.logits.shape
        negative = torch.ones(batch, classes, count, device=finite.device)
        for objects in chunks_of_objects(truth, count, planes_alive=4):
            pairs, iou = overlapping(predictions.boxes, objects, finite)
            highest = pairs.max_by_object(iou)
            highest = pairs.from_objects(torch.where(highest > self.threshold, highest, torch.inf))
            found = ((iou - self.threshold) / (highest - self.threshold)).clamp(0, 1)  # saturated linear, section 3.2
            pairs.scatter_by_class(1 - found, objects.labels, negative, reduce="amin")
        return negative.transpose(1, 2)
