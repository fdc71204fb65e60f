"""Proposals at inference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from poise.boxes import clip
from poise.branches.region import ProposalPostProcess
from poise.postprocess import nms_in_sort_order
from poise.structures import Detections, Predictions


@dataclass(frozen=True)
class ProposalPostProcessByImage(ProposalPostProcess):
    """The same image by image, for inference and for comparison with MMDetection.

    Differs in ties of scores alone (the sigmoid saturates): they stay in the order of torch's sort, as in MMDetection.
    """

    @torch.no_grad()
    def __call__(self, predictions: Predictions, sizes: Tensor) -> Detections:
        """Return proposals (B,K); K is the largest number of proposals of an image."""
        scores, level_sizes = predictions.scores()[..., 0], predictions.priors.level_sizes
        images = zip(predictions.boxes, scores, sizes, strict=True)
        found = [self._of_image(*image, level_sizes) for image in images]
        width = max([1, *(len(scores) for _, scores in found)])
        boxes = torch.stack([pad(boxes, (0, 0, 0, width - len(boxes))) for boxes, _ in found])
        padded = torch.stack([pad(scores, (0, width - len(scores)), value=-1.0) for _, scores in found])
        valid = padded >= 0
        return Detections(boxes, padded.clamp(min=0), torch.zeros_like(valid, dtype=torch.int64), valid)

    def _of_image(
        self, boxes: Tensor, scores: Tensor, size: Tensor, level_sizes: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Return proposals (k,4) and their scores (k,), best first, of boxes (N,4) and scores (N,) of one image."""
        scores = torch.where(scores.isfinite() & boxes.isfinite().all(1), scores, -1.0)
        starts = [sum(level_sizes[:i]) for i in range(len(level_sizes))]
        parts = zip(scores.split(level_sizes), starts, strict=True)
        index = torch.cat([_sorted_topk(part, self.max_per_level) + start for part, start in parts])
        level = torch.bucketize(index, torch.tensor(level_sizes, device=index.device).cumsum(0), right=True)
        boxes, scores = clip(boxes[None, index], size[None])[0], scores[index]
        usable = ((scores >= 0) & (boxes[:, 2:] > boxes[:, :2]).all(1)).nonzero().squeeze(1)
        offset = level[usable] * (boxes[usable].amax() + 1 if len(usable) else 0)
        shifted = boxes[usable] + offset[:, None]
        kept = usable[nms_in_sort_order(shifted, scores[usable], self.nms_threshold)[: self.max_proposals]]
        return boxes[kept], scores[kept]


def _sorted_topk(scores: Tensor, count: int) -> Tensor:
    """Return the indices of the ``count`` highest scores, sorted; all indices, unsorted, if there are no more."""
    if len(scores) <= count:
        return torch.arange(len(scores), device=scores.device)
    return scores.sort(descending=True).indices[:count]
