"""Post-processing of predictions: score threshold, top-k of each level, class-wise NMS, top-k of the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torchvision.ops import nms

from poise.boxes import clip, pairwise_iou
from poise.similarities import Similarity, similarity_named
from poise.structures import Detections, Predictions, RegionPredictions


def topk_pairs(scores: Tensor, level_sizes: Sequence[int], topk: int | None) -> Tensor:
    """Return flat indices (B,P) of the ``topk`` (prior, class) pairs of each level with the highest scores (B,N,C).

    With ``topk=None`` these are all pairs.
    """
    classes, start, pairs = scores.shape[2], 0, []
    if topk is None:
        return torch.arange(scores[0].numel(), device=scores.device).expand(len(scores), -1)
    for size in level_sizes:
        level = scores[:, start : start + size].flatten(1)
        pairs.append(level.topk(min(topk, level.shape[1]), 1).indices + start * classes)
        start += size
    return torch.cat(pairs, 1)


def pairs_above_threshold(scores: Tensor, threshold: float) -> Tensor:
    """Return flat indices (B,P) of the pairs with a score (B,N,C) above ``threshold``.

    P is the largest number of an image; other images are padded with their next highest scores. This number is read
    from the device once, as NMS does anyway.
    """
    flat = scores.flatten(1)
    count = int((flat > threshold).sum(1).max())
    return flat.topk(max(1, count), 1).indices


def topk_priors(scores: Tensor, level_sizes: Sequence[int], topk: int | None) -> Tensor:
    """Return all pairs of the ``topk`` priors of each level with the highest class scores (MMDetection before 2.17)."""
    classes = scores.shape[2]
    priors = topk_pairs(scores.amax(2, keepdim=True), level_sizes, topk)
    return (priors[..., None] * classes + torch.arange(classes, device=scores.device)).flatten(1)


@dataclass(frozen=True)
class PostProcess:
    """Post-processing of dense detectors, with its published test settings."""

    score_threshold: float = 0.05  # (prior, class) pairs with a score up to this are dropped
    nms_threshold: float | None = 0.6  # IoU above which NMS drops the box with the lower score; None: no NMS
    topk: int | None = 1000  # number that ``preselect`` keeps of each level; None: all above ``score_threshold``
    max_detections: int = 100  # detections per image
    preselect: Callable[[Tensor, Sequence[int], int | None], Tensor] = topk_pairs  # before NMS
    min_size: float = 0.0  # px that width and height must exceed; -1 keeps boxes without area
    clip_margin: float | None = 0.0  # boxes are clipped to the image less these px at right and bottom; None: not
    voting_sigma: float = 0.0  # width of the score voting after NMS (see ``score_voting``); 0: no voting
    nms_similarity: str = "iou"  # what ``nms_threshold`` is compared with (see ``similarities.similarity_named``)

    def __post_init__(self) -> None:
        if similarity_named(self.nms_similarity) and self.nms_threshold is None:
            raise ValueError(f"nms_similarity='{self.nms_similarity}' has no effect without NMS (nms_threshold=None)")
        if (
            not (0 <= self.score_threshold <= 1 and 0 <= (self.nms_threshold or 0) <= 1)
            or min(1 if self.topk is None else self.topk, self.max_detections) < 1
            or self.voting_sigma < 0
        ):
            raise ValueError(
                f"{self}: score_threshold and nms_threshold must be in [0,1], topk and max_detections at least 1, "
                "and voting_sigma is not below 0"
            )

    @torch.no_grad()
    def __call__(self, predictions: Predictions, sizes: Tensor) -> Detections:
        """Return detections in pixels of the network's input; ``sizes`` (B,2) are height and width of the images."""
        threshold_scores, classes = predictions.threshold_scores(), predictions.logits.shape[2]
        if self.topk is None:
            pair = pairs_above_threshold(threshold_scores, self.score_threshold)
        else:
            pair = self.preselect(threshold_scores, predictions.priors.level_sizes, self.topk)
        above = threshold_scores.flatten(1).gather(1, pair) > self.score_threshold
        prior, labels = pair // classes, pair % classes
        boxes = self._boxes(predictions, prior, sizes)
        scores = predictions.scores().flatten(1).gather(1, pair)
        large = ((boxes[..., 2:] - boxes[..., :2]) > self.min_size).all(2)
        valid = above & large & scores.isfinite()
        if self.nms_threshold is None:
            found = highest_scores(boxes, scores, labels, valid, count=self.max_detections)
        else:
            found = classwise_nms(
                boxes,
                scores,
                labels,
                valid,
                threshold=self.nms_threshold,
                max_detections=self.max_detections,
                similarity=similarity_named(self.nms_similarity),
            )
        return self._voted(found, predictions, sizes) if self.voting_sigma else found

    def _boxes(self, predictions: Predictions, prior: Tensor, sizes: Tensor) -> Tensor:
        """Return the boxes of the priors (B,P), clipped to the image."""
        boxes = predictions.boxes.gather(1, prior[..., None].expand(-1, -1, 4))
        return boxes if self.clip_margin is None else clip(boxes, sizes - self.clip_margin)

    def _voted(self, found: Detections, predictions: Predictions, sizes: Tensor) -> Detections:
        """Apply score voting with every class of the ``topk`` priors of each level."""
        best = predictions.threshold_scores().amax(2, keepdim=True)
        prior = topk_pairs(best, predictions.priors.level_sizes, self.topk)
        scores = predictions.scores()
        scores = scores.gather(1, prior[..., None].expand(-1, -1, scores.shape[2]))
        scores = torch.where(scores > self.score_threshold, scores, 0.0)
        return score_voting(found, self._boxes(predictions, prior, sizes), scores, self.voting_sigma)


@dataclass(frozen=True)
class SoftNMSPostProcess:
    """Post-processing of Co-DINO: linear soft-NMS (Bodla et al. 2017) of the top (query, class) pairs."""

    candidates: int = 900  # number of pairs before soft-NMS
    max_detections: int = 300  # detections per image
    iou_threshold: float = 0.8  # IoU from which a score is multiplied by 1 - IoU
    min_score: float = 1e-3  # scores below this are dropped

    @torch.no_grad()
    def __call__(self, logits: Tensor, boxes: Tensor, sizes: Tensor) -> Detections:
        """Return detections; arguments as of ``TopKPostProcess``."""
        return self.detections(logits.float().sigmoid(), boxes, sizes)

    @torch.no_grad()
    def detections(self, scores: Tensor, boxes: Tensor, sizes: Tensor) -> Detections:
        """Return detections of scores (B,Q,C), the sigmoids of the logits."""
        found = TopKPostProcess(self.candidates).detections(scores, boxes, sizes)
        scores, index = soft_nms(found, self.iou_threshold, self.min_score, self.max_detections)
        boxes = found.boxes.gather(1, index[..., None].expand(-1, -1, 4))
        return Detections(boxes, scores.clamp(min=0), found.labels.gather(1, index), scores > 0)


def soft_nms(found: Detections, iou_threshold: float, min_score: float, max_detections: int) -> tuple[Tensor, Tensor]:
    """Apply linear soft-NMS within classes; returns ``decay_scores``."""
    factor = decay_factors(found.boxes, found.labels, iou_threshold)
    return decay_scores(torch.where(found.valid, found.scores, -1.0), factor, min_score, max_detections)


def decay_factors(boxes: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Return the factors (B,P,P) by which each of the boxes (B,P,4) lowers the scores of the others of its class."""
    iou = pairwise_iou(boxes, boxes) * (labels[:, :, None] == labels[:, None])
    return torch.where(iou >= iou_threshold, 1 - iou, 1.0)


def decay_scores(scores: Tensor, factor: Tensor, min_score: float, max_detections: int) -> tuple[Tensor, Tensor]:
    """Take the highest of the scores (B,P) again and again, each time multiplying the others by its ``factor`` (B,P,P).

    Returns:
        decayed scores (B,K) in descending order, -1 where no detection is left, and their indices (B,K).
    """
    remaining, decayed, index = scores, [], []
    for _ in range(min(max_detections, remaining.shape[1])):
        best = remaining.max(1, keepdim=True)
        decayed.append(best.values)
        index.append(best.indices)
        remaining = remaining * factor.gather(1, best.indices[..., None].expand(-1, -1, factor.shape[1])).squeeze(1)
        remaining = torch.where(remaining < min_score, -1.0, remaining).scatter(1, best.indices, -1.0)
    return torch.cat(decayed, 1), torch.cat(index, 1)


@dataclass(frozen=True)
class TopKPostProcess:
    """Post-processing of query detectors: the top (query, class) pairs, without NMS."""

    max_detections: int = 100  # detections per image

    @torch.no_grad()
    def __call__(self, logits: Tensor, boxes: Tensor, sizes: Tensor) -> Detections:
        """Return detections of logits (B,Q,C) and boxes (B,Q,4), clipped to heights and widths ``sizes`` (B,2)."""
        return self.detections(logits.float().sigmoid(), boxes, sizes)

    @torch.no_grad()
    def detections(self, scores: Tensor, boxes: Tensor, sizes: Tensor) -> Detections:
        """Return detections of scores (B,Q,C), the sigmoids of the logits."""
        flat = scores.flatten(1)
        best = flat.topk(min(self.max_detections, flat.shape[1]), 1)
        query, labels = best.indices // scores.shape[2], best.indices % scores.shape[2]
        boxes = clip(boxes.float().gather(1, query[..., None].expand(-1, -1, 4)), sizes)
        return Detections(boxes, best.values, labels, boxes.isfinite().all(2) & best.values.isfinite())


def nms_in_sort_order(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Apply NMS with equal scores in the order of torch's (unstable) sort, on which MMDetection's results depend."""
    order = scores.sort(descending=True).indices
    ranks = torch.arange(len(order), 0, -1, device=boxes.device, dtype=boxes.dtype)
    return order[nms(boxes[order], ranks, threshold)]


def highest_scores(boxes: Tensor, scores: Tensor, labels: Tensor, valid: Tensor, *, count: int) -> Detections:
    """Return the ``count`` highest-scoring of the ``valid`` ones of (B,P) candidates, without NMS."""
    order = torch.where(valid, scores, -1.0).topk(min(count, scores.shape[1]), 1).indices
    columns = scores.gather(1, order), labels.gather(1, order), valid.gather(1, order)
    return Detections(boxes.gather(1, order[..., None].expand(-1, -1, 4)), *columns)


def classwise_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    valid: Tensor,
    *,
    threshold: float,
    max_detections: int,
    nms: Callable[[Tensor, Tensor, float], Tensor] = nms,
    similarity: Similarity | None = None,
) -> Detections:
    """Apply class-wise NMS to the ``valid`` ones of (B,P) candidates, and pad the top ``max_detections`` of each image.

    With another ``similarity`` than the IoU, ``similarity_nms`` is applied.

    NMS runs image by image, because the size of its output depends on the data (one of two exceptions to the rule
    against host synchronization). Boxes of different classes are shifted apart, as in the original codes.
    """
    if similarity is not None:
        found = Detections(boxes, scores, labels, valid)
        return similarity_nms(found, similarity, threshold, max_detections)
    kept = []
    for i in range(len(boxes)):
        candidates = valid[i].nonzero().squeeze(1)
        shift = labels[i, candidates].float() * (boxes[i, candidates].amax() + 1 if len(candidates) else 0)
        keep = nms(boxes[i, candidates] + shift[:, None], scores[i, candidates], threshold)[:max_detections]
        kept.append(candidates[keep])
    width = max([1, *map(len, kept)])
    index = torch.stack([torch.nn.functional.pad(keep, (0, width - len(keep))) for keep in kept])
    valid = torch.stack([torch.arange(width, device=boxes.device) < len(keep) for keep in kept])
    if not boxes.shape[1]:
        raise ValueError("no candidates: the head has no priors (is the image smaller than one stride?)")
    return Detections(
        boxes.gather(1, index[..., None].expand(-1, -1, 4)), scores.gather(1, index), labels.gather(1, index), valid
    )


def similarity_nms(found: Detections, similarity: Similarity, threshold: float, max_detections: int) -> Detections:
    """Apply NMS that drops a box whose ``similarity`` with a kept one of its class exceeds ``threshold``.

    The highest remaining score of each image is kept, again and again, in all images at once.
    """
    count = max(1, int(found.valid.sum(1).max()))
    best = torch.where(found.valid, found.scores, -1.0).topk(count, 1)
    boxes = found.boxes.gather(1, best.indices[..., None].expand(-1, -1, 4))
    labels, remaining, kept = found.labels.gather(1, best.indices), best.values, []
    for _ in range(min(max_detections, count)):
        highest = remaining.max(1, keepdim=True)
        kept.append(highest)
        own = boxes.gather(1, highest.indices[..., None].expand(-1, -1, 4))
        near = torch.nan_to_num(similarity(own, boxes), nan=0.0) > threshold
        near &= labels == labels.gather(1, highest.indices)
        remaining = torch.where(near, -1.0, remaining).scatter(1, highest.indices, -1.0)
    scores, index = torch.cat([one.values for one in kept], 1), torch.cat([one.indices for one in kept], 1)
    width = max(1, int((scores >= 0).sum(1).max()))
    scores, index = scores[:, :width], index[:, :width]
    boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4))
    return Detections(boxes, scores.clamp(min=0), labels.gather(1, index), scores >= 0)


class BoxDecoder(Protocol):
    """Decodes box deltas, such as a ``boxes.DeltaCoder``."""

    def decode(self, boxes: Tensor, deltas: Tensor, /) -> Tensor:
        """Return boxes (...,4) of deltas (...,4) from the boxes of the priors."""
        ...


@dataclass(frozen=True)
class RegionPostProcess:
    """Post-processing of the second stage of two-stage detectors: score threshold, NMS of each class, top-k."""

    score_threshold: float = 0.05  # (region, class) pairs at or below this are dropped
    nms_threshold: float = 0.5
    max_detections: int = 100
    nms_similarity: str = "iou"  # as in ``PostProcess``

    def __post_init__(self) -> None:
        similarity_named(self.nms_similarity)  # refuses a wrong one
        if self.nms_threshold is None:
            raise ValueError("nms_threshold=None: regions of a two-stage detector overlap and need NMS; give an IoU")
        if not (0 <= self.score_threshold <= 1 and 0 <= self.nms_threshold <= 1) or self.max_detections < 1:
            raise ValueError(f"{self}: score_threshold and nms_threshold lie in [0,1], max_detections is at least 1")

    @torch.no_grad()
    def __call__(self, predictions: RegionPredictions, decoder: BoxDecoder, valid: Tensor, sizes: Tensor) -> Detections:
        """Return detections; each class of a region has its own box, decoded by ``decoder``.

        Args:
            valid: (B,S) bool, regions that are not padding.
            sizes: (B,2) height and width of the images.
        """
        boxes = decoder.decode(predictions.priors.boxes[:, :, None], predictions.deltas)
        return self.detections(torch.where(valid[..., None], predictions.threshold_scores(), 0.0), boxes, sizes)

    @torch.no_grad()
    def detections(self, scores: Tensor, boxes: Tensor, sizes: Tensor) -> Detections:
        """Return detections of scores (B,S,C), 0 for padding, and boxes (B,S,C|1,4); ``sizes`` as above."""
        batch, regions, classes = scores.shape
        boxes = clip(boxes.expand(-1, -1, classes, -1).flatten(1, 2), sizes)
        labels = torch.arange(classes, device=scores.device).repeat(regions).expand(batch, -1)
        usable = (scores > self.score_threshold).flatten(1) & boxes.isfinite().all(-1)
        return classwise_nms(
            boxes,
            scores.flatten(1),
            labels,
            usable,
            threshold=self.nms_threshold,
            max_detections=self.max_detections,
            nms=nms_in_sort_order,
            similarity=similarity_named(self.nms_similarity),
        )


AnyPostProcess = PostProcess | RegionPostProcess | TopKPostProcess | SoftNMSPostProcess


def score_voting(
    found: Detections, boxes: Tensor, scores: Tensor, sigma: float, *, min_iou: float = 0.01
) -> Detections:
    """Move each detection to the weighted mean of the boxes around it (PAA: Kim and Lee 2020, section 3.4).

    The weight of a box (B,P,4) is exp(-(1 - IoU)^2 / sigma) times its score (B,P,C) in the detection's class. Boxes
    with an IoU up to ``min_iou`` and nonfinite boxes have weight 0.
    """
    iou = pairwise_iou(found.boxes, boxes)
    column = found.labels[..., None].expand(-1, -1, boxes.shape[1])
    weight = (-((1 - iou) ** 2) / sigma).exp() * scores.transpose(1, 2).gather(1, column)
    weight = torch.where((iou > min_iou) & boxes.isfinite().all(2)[:, None], weight, 0.0)
    weight = torch.nan_to_num(weight)
    total = weight.sum(2, keepdim=True)
    mean = torch.bmm(weight, torch.nan_to_num(boxes, posinf=0.0, neginf=0.0)) / total.clamp(min=1e-12)
    return replace(found, boxes=torch.where(total > 0, mean, found.boxes))
