"""RFAssigner (Guan et al. 2026, arXiv 2601.01240): candidates of dual weighting beyond the sides of the object.

A small object holds few priors, so that it has few candidates. RFAssigner compares the receptive field of each prior,
as a square at several ratios, with the object by the Gaussian combined distance (GCD), and adds the priors that are
similar enough. What a candidate is worth is decided by dual weighting as before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.assign.receptive_field import receptive_fields
from poise.boxes import EPS, distance_inside, planar, squared_gcd_along, xyxy_to_cxcywh
from poise.pairwise import Objects, Pairs, from_mask, object_slices
from poise.structures import GroundTruth, Priors


@dataclass(frozen=True)
class ReceptiveFieldCandidates:
    """The priors inside each object, and further ones whose receptive field is similar to the object.

    The similarity of a field and an object is exp(-sqrt(D^2)), D^2 the squared Gaussian combined distance. Further
    candidates are taken from the priors that are not inside the object. The threshold of an object is the mean plus the
    standard deviation of its ``topk`` highest similarities over all of them and all ratios. Those are candidates whose
    highest similarity reaches the threshold and lies in [``low``, ``high``]. As in dual weighting, a prior can be a
    candidate of several objects. Priors beyond an image's padding are none.
    """

    ratios: tuple[float, ...] = (0.8, 0.6, 0.4, 0.2)  # of the theoretical receptive field
    topk: int = 9
    low: float = 0.55
    high: float = 0.85
    divisor: int = 32  # images are padded to a multiple of it

    def __post_init__(self) -> None:
        if not self.ratios or min(self.ratios) <= 0 or self.topk < 2 or not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"{self}: ratios are positive, topk is at least 2, 0 <= low <= high <= 1")

    def __call__(self, priors: Priors, objects: Objects, truth: GroundTruth) -> Pairs:
        points, reachable = planar(priors.centers.float())[:, None], priors.within(truth.padded_sizes(self.divisor))
        (batch, count), masks = objects.labels.shape, []
        for part in object_slices(batch, reachable.shape[1], count, planes_alive=4, dense_on=points.device):
            boxes = objects.boxes[:, part]
            inside = distance_inside(points, boxes[:, :, None]) > 0
            similarity, threshold = self.similarities(priors, boxes, reachable[:, None] & ~inside)
            threshold = threshold.clamp(min=self.low)[..., None]
            masks.append(inside | (similarity >= threshold) & (similarity <= self.high))
        return from_mask(torch.cat(masks, 1) & objects.valid[..., None])

    def similarities(self, priors: Priors, boxes: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
        """Return the highest similarity of each prior with objects (B,g,4), (B,g,N), and their thresholds (B,g).

        Args:
            usable: (B,g,N) bool; the similarity of the other pairs is 0.
        """
        x, y = planar(priors.centers.float()).unbind(-1)
        center_x, center_y, *sizes = xyxy_to_cxcywh(boxes)[..., None].unbind(2)
        width, height = (size.clamp(min=EPS) for size in sizes)

        def squared(across: Tensor, along: Tensor, side: Tensor) -> Tensor:
            return squared_gcd_along(across, width, side) + squared_gcd_along(along, height, side)

        fields, least, lowest, start = receptive_fields(priors.strides), [], [], 0
        for size in priors.level_sizes:
            level = slice(start, start + size)
            sides = [fields[start : start + 1] * ratio for ratio in self.ratios]
            across = torch.where(usable[..., level], x[:, None, level] - center_x, torch.inf)
            along = y[:, None, level] - center_y
            least.append(squared(across, along, sides[0]))
            for side in sides[1:]:
                least[-1] = torch.minimum(least[-1], squared(across, along, side))
            # the lowest values over all ratios are those of the priors whose least values are lowest
            prior = least[-1].topk(min(self.topk, size), largest=False).indices
            across, along = across.gather(2, prior), along.gather(2, prior)
            lowest += [squared(across, along, side) for side in sides]
            start += size
        every = torch.cat(lowest, 2)
        top = (-every.topk(min(self.topk, every.shape[2]), largest=False).values.sqrt()).exp()
        return (-torch.cat(least, 2).sqrt()).exp(), top.mean(2) + top.std(2)
