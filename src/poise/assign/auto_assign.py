"""AutoAssign: places weigh themselves (Zhu et al. 2020).

A place inside an object counts by how sure its prediction is and by a learned prior around the centre of the
object's class; it is the less of a negative the better its box fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from poise.assign.bags import Bag, SoftCenter
from poise.assign.dual_weighting import of_classes
from poise.assign.likelihood import TINY, CenteredBags, in_slices
from poise.assign.protocol import object_chunks
from poise.boxes import depth_inside, giou, iou
from poise.structures import GroundTruth, Predictions, Priors

TEMPORARIES = 8  # planes of pairs alive at once, against what streaming allows for


@dataclass(frozen=True)
class AutoAssign:
    """Soft assignment from predictions; ``bag`` is the centre prior, mostly a head's ``CenterPrior``.

    Objects of one class that contain the same place both speak of its negative weight there: the one with the highest
    index wins. Places with predictions that are not finite get no positive weight.
    """

    reads: ClassVar[str] = "predictions"
    bag: Bag = SoftCenter(1.0)
    beta: float = 5.0  # weight of the box in the likelihood of a place
    sharpness: float = 3.0  # of the confidence weight, exp(sharpness * likelihood)

    def __post_init__(self) -> None:
        if min(self.beta, self.sharpness) < 0:
            raise ValueError(f"AutoAssign(beta={self.beta}, sharpness={self.sharpness}): none is negative")

    def __call__(self, predictions: Predictions, truth: GroundTruth) -> CenteredBags:
        priors, boxes, finite = predictions.priors, predictions.boxes.float(), predictions.finite()[:, None]
        scores = predictions.float().scores().transpose(1, 2).contiguous()  # places last, whatever the padding
        batch, classes, places = scores.shape
        slices = object_chunks(batch * TEMPORARIES, places, truth.labels.shape[1])

        def positives_of(part: slice, scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            inside = _inside(priors, truth, part) & finite
            prior = self.bag(priors, truth.boxes[:, part], truth.labels[:, part]) * inside
            likelihood = self._likelihood(scores, boxes, truth.boxes[:, part], truth.labels[:, part], inside)
            weight = (self.sharpness * likelihood).exp() * prior * (likelihood > 0)
            weight = weight / weight.sum(2, keepdim=True).clamp(min=TINY)
            return weight.detach(), (weight * likelihood).sum(2), prior.sum(2)

        weight, likelihood, mass = in_slices(positives_of, slices, scores, boxes)
        negative = self._negative(priors, boxes.detach(), truth, slices, classes)
        return CenteredBags(weight.transpose(1, 2), negative.transpose(1, 2), likelihood, mass)

    def _likelihood(self, scores: Tensor, boxes: Tensor, objects: Tensor, labels: Tensor, inside: Tensor) -> Tensor:
        """Class score * exp(-beta * GIoU loss) of each place for each object, (B,g,N); 0 outside."""
        score = scores.gather(1, labels[..., None].expand(-1, -1, scores.shape[2]))
        value = score * (-self.beta * (1 - giou(boxes[:, None], objects[:, :, None]))).exp()
        return torch.where(inside & value.isfinite(), value, 0.0)

    @torch.no_grad()
    def _negative(self, priors: Priors, boxes: Tensor, truth: GroundTruth, slices: list[slice], classes: int) -> Tensor:
        """(B,C,N): 1 outside the objects of a class, inside the less the better the place's box fits any object."""
        fit = boxes.new_zeros(boxes.shape[:2])
        for part in slices:
            overlap = torch.where(truth.valid[:, part, None], iou(boxes[:, None], truth.boxes[:, part, None]), 0.0)
            fit = torch.maximum(fit, torch.nan_to_num(overlap, posinf=0.0).amax(1))
        sureness = 1 / (1 - fit).clamp(min=TINY)
        negative = torch.ones(len(boxes), classes, boxes.shape[1], device=boxes.device)
        for part in slices:
            inside = _inside(priors, truth, part)
            value = sureness[:, None].expand_as(inside)
            low = torch.where(inside, value, torch.inf).amin(2, keepdim=True)
            high = torch.where(inside, value, -torch.inf).amax(2, keepdim=True)
            spread = (value - low + TINY) / (high - low + TINY)
            held, probability = of_classes(1 - spread, inside, truth.labels[:, part], classes)
            negative = torch.where(held, probability, negative)
        return negative


def _inside(priors: Priors, truth: GroundTruth, part: slice) -> Tensor:
    """Places strictly inside each valid object, (B,g,N) bool."""
    depth = depth_inside(priors.centers.float(), truth.boxes[:, part]).transpose(1, 2)
    return ((depth > 0) & truth.valid[:, part, None]).contiguous()
