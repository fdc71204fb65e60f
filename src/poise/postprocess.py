"""From predictions to detections: threshold, best of each level, class-wise NMS, best of the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.ops import nms

from poise.boxes import clip, pairwise_iou
from poise.structures import Detections, Predictions


def topk_pairs(gate: Tensor, level_sizes: Sequence[int], topk: int | None) -> Tensor:
    """Flat indices (B,P) of the ``topk`` best (place, class) pairs of each level (None: of all pairs)."""
    classes, start, pairs = gate.shape[2], 0, []
    if topk is None:
        return torch.arange(gate[0].numel(), device=gate.device).expand(len(gate), -1)
    for size in level_sizes:
        level = gate[:, start : start + size].flatten(1)
        pairs.append(level.topk(min(topk, level.shape[1]), 1).indices + start * classes)
        start += size
    return torch.cat(pairs, 1)


def pairs_above_threshold(gate: Tensor, score: float) -> Tensor:
    """Flat indices (B,P) of the pairs above ``score``, padded with the next best to the greatest number of an image.

    How many they are is read from the device once, as NMS is about to do anyway.
    """
    flat = gate.flatten(1)
    most = int((flat > score).sum(1).max())
    return flat.topk(max(1, most), 1).indices


def topk_priors(gate: Tensor, level_sizes: Sequence[int], topk: int | None) -> Tensor:
    """All pairs of the ``topk`` places of each level with the best class scores (MMDetection before 2.17)."""
    classes = gate.shape[2]
    places = topk_pairs(gate.amax(2, keepdim=True), level_sizes, topk)
    return (places[..., None] * classes + torch.arange(classes, device=gate.device)).flatten(1)


@dataclass(frozen=True)
class PostProcess:
    """Published test settings of dense detectors."""

    score_threshold: float = 0.05  # (place, class) pairs at or below this are dropped
    nms_threshold: float = 0.6  # IoU above which the lower-scored of two boxes of a class is dropped
    topk: int | None = 1000  # what ``select`` keeps of a level before NMS; None: all above ``score``
    max_detections: int = 100  # detections an image
    preselect: Callable[[Tensor, Sequence[int], int | None], Tensor] = topk_pairs
    min_size: float = 0.0  # px that both sides of a box must exceed; -1 keeps boxes without area
    clip_margin: float | None = 0.0  # px that boxes keep from the right and bottom edge; None: they may leave the image
    voting_sigma: float = 0.0  # spread of the score voting after NMS (see ``score_voting``); 0: none

    def __post_init__(self) -> None:
        if (
            not (0 <= self.score_threshold <= 1 and 0 <= self.nms_threshold <= 1)
            or min(1 if self.topk is None else self.topk, self.max_detections) < 1
            or self.voting_sigma < 0
        ):
            raise ValueError(
                f"{self}: score and nms lie in [0,1], topk and most are at least 1, voting_sigma is not below 0"
            )

    @torch.no_grad()
    def __call__(self, predictions: Predictions, sizes: Tensor) -> Detections:
        """Detections in pixels of the network's input; ``sizes`` (B,2) are the images' height and width."""
        gate, classes = predictions.threshold_scores(), predictions.logits.shape[2]
        if self.topk is None:
            pair = pairs_above_threshold(gate, self.score_threshold)
        else:
            pair = self.preselect(gate, predictions.priors.level_sizes, self.topk)
        confident = gate.flatten(1).gather(1, pair) > self.score_threshold
        place, labels = pair // classes, pair % classes
        boxes = predictions.boxes.gather(1, place[..., None].expand(-1, -1, 4))
        boxes = boxes if self.clip_margin is None else clip(boxes, sizes - self.clip_margin)
        scores = predictions.scores().flatten(1).gather(1, pair)
        solid = ((boxes[..., 2:] - boxes[..., :2]) > self.min_size).all(2)
        found = classwise_nms(
            boxes, scores, labels, confident & solid & scores.isfinite(), self.nms_threshold, self.max_detections
        )
        return self._voted(found, predictions, sizes) if self.voting_sigma else found

    def _voted(self, found: Detections, predictions: Predictions, sizes: Tensor) -> Detections:
        """Every class of the best places of each level has a vote."""
        scores = predictions.scores()
        place = topk_pairs(
            predictions.threshold_scores().amax(2, keepdim=True), predictions.priors.level_sizes, self.topk
        )
        boxes = predictions.boxes.gather(1, place[..., None].expand(-1, -1, 4))
        boxes = boxes if self.clip_margin is None else clip(boxes, sizes - self.clip_margin)
        scores = scores.gather(1, place[..., None].expand(-1, -1, scores.shape[2]))
        return score_voting(found, boxes, torch.where(scores > self.score_threshold, scores, 0.0), self.voting_sigma)


@dataclass(frozen=True)
class SoftNMSPostProcess:
    """Co-DINO's: of the best (query, class) pairs those that overlap a better one of their class lose score."""

    candidates: int = 900  # pairs that enter
    max_detections: int = 300  # detections an image
    overlap: float = 0.8  # IoU from which a score is multiplied by 1 - IoU (linear soft-NMS: Bodla et al. 2017)
    least: float = 1e-3  # scores that fall below this are dropped

    @torch.no_grad()
    def __call__(self, logits: Tensor, boxes: Tensor, sizes: Tensor) -> Detections:
        """As ``TopKPostProcess``."""
        found = TopKPostProcess(self.candidates)(logits, boxes, sizes)
        scores, index = soft_nms(found, self.overlap, self.least, self.max_detections)
        boxes = found.boxes.gather(1, index[..., None].expand(-1, -1, 4))
        return Detections(boxes, scores.clamp(min=0), found.labels.gather(1, index), scores > 0)


def soft_nms(found: Detections, overlap: float, least: float, most: int) -> tuple[Tensor, Tensor]:
    """Linear soft-NMS within classes: softened scores (B,most), best first, -1 where none is left, and their index."""
    alike = found.labels[:, :, None] == found.labels[:, None]
    overlaps = pairwise_iou(found.boxes, found.boxes) * alike
    factor = torch.where(overlaps >= overlap, 1 - overlaps, 1.0)
    left = torch.where(found.valid, found.scores, -1.0)
    scores, index = [], []
    for _ in range(min(most, left.shape[1])):
        best = left.max(1, keepdim=True)
        scores.append(best.values)
        index.append(best.indices)
        left = left * factor.gather(1, best.indices[..., None].expand(-1, -1, left.shape[1])).squeeze(1)
        left = torch.where(left < least, -1.0, left).scatter(1, best.indices, -1.0)
    return torch.cat(scores, 1), torch.cat(index, 1)


@dataclass(frozen=True)
class TopKPostProcess:
    """Published test settings of query detectors: the best (query, class) pairs, without suppression."""

    max_detections: int = 100  # detections an image

    @torch.no_grad()
    def __call__(self, logits: Tensor, boxes: Tensor, sizes: Tensor) -> Detections:
        """Detections of (B,Q,C) logits and (B,Q,4) boxes, clipped to ``sizes`` (B,2) heights and widths."""
        scores = logits.float().sigmoid().flatten(1)
        best = scores.topk(min(self.max_detections, scores.shape[1]), 1)
        place, labels = best.indices // logits.shape[2], best.indices % logits.shape[2]
        chosen = clip(boxes.float().gather(1, place[..., None].expand(-1, -1, 4)), sizes)
        return Detections(chosen, best.values, labels, chosen.isfinite().all(2) & best.values.isfinite())


def nms_in_sort_order(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """NMS whose equal scores stay as torch's (unstable) sort leaves them, on which MMDetection's numbers depend."""
    order = scores.sort(descending=True).indices
    ranks = torch.arange(len(order), 0, -1, device=boxes.device, dtype=boxes.dtype)
    return order[nms(boxes[order], ranks, threshold)]


def classwise_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    usable: Tensor,
    threshold: float,
    most: int,
    nms: Callable[[Tensor, Tensor, float], Tensor] = nms,
) -> Detections:
    """Class-wise NMS of (B,P) candidates, then the best ``most`` of each image, padded.

    NMS runs image by image: its output size depends on the data (one of the two listed exceptions to the rule of no
    host synchronization). Classes are kept apart by shifting their boxes, as the originals do.
    """
    kept = []
    for i in range(len(boxes)):
        candidates = usable[i].nonzero().squeeze(1)
        shift = labels[i, candidates].float() * (boxes[i, candidates].amax() + 1 if len(candidates) else 0)
        keep = nms(boxes[i, candidates] + shift[:, None], scores[i, candidates], threshold)[:most]
        kept.append(candidates[keep])
    width = max([1, *map(len, kept)])
    index = torch.stack([torch.nn.functional.pad(keep, (0, width - len(keep))) for keep in kept])
    valid = torch.stack([torch.arange(width, device=boxes.device) < len(keep) for keep in kept])
    if not boxes.shape[1]:
        raise ValueError("no candidates at all: the head predicted at no place (is the image smaller than one stride?)")
    return Detections(
        boxes.gather(1, index[..., None].expand(-1, -1, 4)), scores.gather(1, index), labels.gather(1, index), valid
    )


def score_voting(found: Detections, boxes: Tensor, scores: Tensor, spread: float, least: float = 0.01) -> Detections:
    """Move each detection to the mean of the (B,P,4) boxes around it (PAA: Kim and Lee 2020, section 3.4).

    A box weighs exp(-(1 - IoU)^2 / spread) times its score (B,P,C) in the detection's class; boxes below IoU ``least``
    and those that are not finite do not count.
    """
    overlap = pairwise_iou(found.boxes, boxes)
    column = found.labels[..., None].expand(-1, -1, boxes.shape[1])
    weight = (-((1 - overlap) ** 2) / spread).exp() * scores.transpose(1, 2).gather(1, column)
    weight = torch.where((overlap > least) & boxes.isfinite().all(2)[:, None], weight, 0.0)
    weight = torch.nan_to_num(weight)
    total = weight.sum(2, keepdim=True)
    mean = torch.bmm(weight, torch.nan_to_num(boxes, posinf=0.0, neginf=0.0)) / total.clamp(min=1e-12)
    return replace(found, boxes=torch.where(total > 0, mean, found.boxes))
