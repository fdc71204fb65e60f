"""From a proposal head's predictions to proposals: best of each level, NMS, best of the image, padded.

Two forms that differ in nothing but equal scores (sigmoids saturate): ``Propose`` works on whole batches and takes the
lowest index first; ``ProposeByImage`` goes image by image and leaves equal scores in the order in which torch's sort
happens to leave them, as MMDetection does, whose numbers depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import nms

from poise.boxes import clip
from poise.postprocess import nms_in_sort_order
from poise.structures import Detections, GroundTruth, Predictions

NMS_AT_ONCE = 1 << 15  # boxes in one call on a GPU, where its memory grows with the square


@dataclass(frozen=True)
class Propose:
    """Settings of the proposal stage; ``__call__`` gives class-agnostic ``Detections`` (labels 0)."""

    per_level: int = 2000  # kept of each level before NMS
    max_detections: int = 1000  # kept of each image
    nms_threshold: float = 0.7  # IoU above which the lower-scored of two boxes of a level is dropped

    def __post_init__(self) -> None:
        if min(self.per_level, self.max_detections) < 1 or not 0 <= self.nms_threshold <= 1:
            raise ValueError(f"{self}: per_level and most are at least 1, nms lies in [0,1]")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, sizes: Tensor) -> Detections:
        """Proposals (B,most) clipped to ``sizes`` (B,2) height and width, without boxes not finite or empty."""
        place, sizes_of_levels = self._best_of_levels(predictions)
        scores = predictions.scores()[..., 0].gather(1, place)
        boxes = predictions.boxes.gather(1, place[..., None].expand(-1, -1, 4))
        usable = boxes.isfinite().all(-1) & scores.isfinite()
        boxes = clip(torch.where(usable[..., None], boxes, 0.0), sizes)
        usable = usable & (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
        scores = torch.where(usable, scores, 0.0)
        kept = usable & _survivors(boxes, scores, sizes_of_levels, self.nms_threshold)
        index = _highest(torch.where(kept, scores, -1.0), self.max_detections)
        valid = kept.gather(1, index)
        chosen = torch.where(valid[..., None], boxes.gather(1, index[..., None].expand(-1, -1, 4)), 0.0)
        return Detections(chosen, scores.gather(1, index) * valid, torch.zeros_like(index), valid)

    def _best_of_levels(self, predictions: Predictions) -> tuple[Tensor, list[int]]:
        """Places (B,P) with the highest scores of each level, and how many of each level they are."""
        scores = predictions.scores()[..., 0].nan_to_num(nan=-1.0)
        places, start = [], 0
        for size in predictions.priors.level_sizes:
            places.append(_highest(scores[:, start : start + size], self.per_level) + start)
            start += size
        return torch.cat(places, 1), [part.shape[1] for part in places]


@dataclass(frozen=True)
class ProposeByImage(Propose):
    """The same image by image; for inference, and for comparisons with the original."""

    @torch.no_grad()
    def __call__(self, predictions: Predictions, sizes: Tensor) -> Detections:
        """As ``Propose``; the number of proposals is that of the image with the most."""
        scores, levels = predictions.scores()[..., 0], predictions.priors.level_sizes
        found = [self._of_image(*image, levels) for image in zip(predictions.boxes, scores, sizes, strict=True)]
        width = max([1, *(len(scores) for _, scores in found)])
        boxes = torch.stack([functional.pad(boxes, (0, 0, 0, width - len(boxes))) for boxes, _ in found])
        padded = torch.stack([functional.pad(scores, (0, width - len(scores)), value=-1.0) for _, scores in found])
        valid = padded >= 0
        return Detections(boxes, padded.clamp(min=0), torch.zeros_like(valid, dtype=torch.int64), valid)

    def _of_image(self, boxes: Tensor, scores: Tensor, size: Tensor, levels: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Proposals (k,4) and their scores (k,), best first, of (N,4) boxes and (N,) scores."""
        scores = torch.where(scores.isfinite() & boxes.isfinite().all(1), scores, -1.0)
        place = torch.cat([_best(part, self.per_level) + start for part, start in _parts(scores, levels)])
        level = torch.bucketize(place, torch.tensor(levels, device=place.device).cumsum(0), right=True)
        boxes, scores = clip(boxes[None, place], size[None])[0], scores[place]
        solid = ((scores >= 0) & (boxes[:, 2:] > boxes[:, :2]).all(1)).nonzero().squeeze(1)
        shifted = boxes[solid] + (level[solid] * (boxes[solid].amax() + 1 if len(solid) else 0))[:, None]
        kept = solid[nms_in_sort_order(shifted, scores[solid], self.nms_threshold)[: self.max_detections]]
        return boxes[kept], scores[kept]


def _parts(scores: Tensor, levels: tuple[int, ...]) -> list[tuple[Tensor, int]]:
    """The scores of each level and where it starts."""
    starts = [sum(levels[:i]) for i in range(len(levels))]
    return list(zip(scores.split(levels), starts, strict=True))


def _best(scores: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` highest, sorted; all, unsorted, where there are no more."""
    if len(scores) <= count:
        return torch.arange(len(scores), device=scores.device)
    return scores.sort(descending=True).indices[:count]


def _highest(scores: Tensor, count: int) -> Tensor:
    """Indices (B,count) of the highest (B,P) scores, negative ones last, ties to the lowest index."""
    size = scores.shape[1]
    # The bits of a non-negative float order as integers do; the index below them makes every key unique.
    bits = scores.clamp(min=0).view(torch.int32).long() + 1
    keys = torch.where(scores < 0, 0, bits) << 32
    keys |= torch.arange(size - 1, -1, -1, device=keys.device)
    return keys.topk(min(count, size), 1).indices


def _images_at_once(boxes: Tensor) -> int:
    """Images of one call of NMS; 0: each level alone, as on a CPU its time grows with the square."""
    return max(1, NMS_AT_ONCE // boxes.shape[1]) if boxes.is_cuda else 0


def _survivors(boxes: Tensor, scores: Tensor, sizes: Sequence[int], threshold: float) -> Tensor:
    """Which of (B,P) boxes NMS keeps, images and levels (so many places each) apart.

    Images and levels are shifted apart, as many images a call as memory allows; that the number of kept boxes depends
    on the data is one of the listed exceptions to the rule of no host synchronization.
    """
    step = _images_at_once(boxes)
    if not step:
        return _survivors_of_levels(boxes, scores, sizes, threshold)
    extent = boxes.amax() + 1
    level = torch.cat([torch.full((size,), i, device=boxes.device) for i, size in enumerate(sizes)])
    turn = torch.arange(len(boxes), device=level.device) % step
    groups = level + (level.amax() + 1) * turn[:, None]
    shifted = boxes + (groups * extent)[..., None]
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for start in range(0, len(boxes), step):
        part = slice(start, start + step)
        index = nms(shifted[part].flatten(0, 1), scores[part].flatten(), threshold)
        kept[part] = torch.zeros_like(kept[part]).flatten().scatter(0, index, True).reshape(kept[part].shape)
    return kept


def _survivors_of_levels(boxes: Tensor, scores: Tensor, sizes: Sequence[int], threshold: float) -> Tensor:
    """The same in one call an image and level."""
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for of_boxes, of_scores, of_kept in zip(boxes, scores, kept, strict=True):
        for part, rank, keep in zip(*(t.split(list(sizes)) for t in (of_boxes, of_scores, of_kept)), strict=True):
            keep[nms(part, rank, threshold)] = True
    return kept


def with_truth(proposals: Detections, truth: GroundTruth) -> Detections:
    """The valid objects ahead of the proposals, (B,G+K): early in training proposals alone find few."""
    return Detections(
        torch.cat((truth.boxes, proposals.boxes), 1),
        torch.cat((truth.valid.float(), proposals.scores), 1),
        torch.cat((torch.zeros_like(truth.labels), proposals.labels), 1),
        torch.cat((truth.valid, proposals.valid), 1),
    )


def given(boxes: Sequence[Tensor]) -> Detections:
    """Proposals that come from elsewhere: one (n_i,4) tensor of xyxy pixels an image, padded to the most of them."""
    width = max([1, *map(len, boxes)])
    padded = torch.stack([functional.pad(part.reshape(-1, 4).float(), (0, 0, 0, width - len(part))) for part in boxes])
    counts = torch.tensor([len(part) for part in boxes], device=padded.device)
    valid = torch.arange(width, device=padded.device) < counts[:, None]
    return Detections(padded, valid.float(), torch.zeros_like(valid, dtype=torch.int64), valid)
