"""Operators of two-stage and query detectors in exported graphs: NMS, RoIAlign on a pyramid, soft-NMS.

Each is one node of the traced program, whose shape does not depend on the data, and becomes operators of the runtime in
``onnx_operators``. The implementations below run where a traced program is run by PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import nms, roi_align

from poise.postprocess import decay_scores


@torch.library.custom_op("poise_export::suppress", mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Apply non-maximum suppression in every group of boxes.

    Args:
        boxes: (...,N,4).
        scores: (...,N); boxes with a score of 0 or less are dropped.
        threshold: IoU above which NMS drops the box with the lower score.

    Returns:
        (...,N) scores, 0 where a box is dropped.
    """
    kept = torch.zeros_like(scores).flatten(0, -2)
    groups = zip(boxes.flatten(0, -3), scores.flatten(0, -2), kept, strict=True)
    for group_boxes, group_scores, group_kept in groups:
        candidates = (group_scores > 0).nonzero().squeeze(1)
        index = candidates[nms(group_boxes[candidates], group_scores[candidates], threshold)]
        group_kept[index] = group_scores[index]
    return kept.reshape(scores.shape)


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    return torch.empty_like(scores)


@torch.library.custom_op("poise_export::read_regions", mutates_args=())
def read_regions(
    maps: Sequence[Tensor], regions: Tensor, image: Tensor, level: Tensor, scales: Sequence[float], bins: int
) -> Tensor:
    """Read regions from a pyramid by RoIAlign, each from its level.

    Args:
        maps: (B,C,H_l,W_l) of each level.
        regions: (R,4) xyxy pixels.
        image, level: (R,) int64 image and level of each region.
        scales: cells a pixel of each level.
        bins: along each side of a region.

    Returns:
        (R,C,bins,bins).
    """
    features = regions.new_zeros(len(regions), maps[0].shape[1], bins, bins)
    for number, (values, scale) in enumerate(zip(maps, scales, strict=True)):
        rows = (level == number).nonzero().squeeze(1)
        rois = torch.cat((image[rows, None].to(regions.dtype), regions[rows]), 1)
        features[rows] = roi_align(values, rois, bins, scale, aligned=True)
    return features


@read_regions.register_fake
def _(
    maps: Sequence[Tensor], regions: Tensor, image: Tensor, level: Tensor, scales: Sequence[float], bins: int
) -> Tensor:
    return regions.new_empty(regions.shape[0], maps[0].shape[1], bins, bins)


@torch.library.custom_op("poise_export::decay", mutates_args=())
def decay(scores: Tensor, factor: Tensor, min_score: float, limit: int) -> tuple[Tensor, Tensor]:
    """Apply the loop of soft-NMS, ``poise.postprocess.decay_scores``."""
    return decay_scores(scores, factor, min_score, limit)


@decay.register_fake
def _(scores: Tensor, factor: Tensor, min_score: float, limit: int) -> tuple[Tensor, Tensor]:
    shape = scores.shape[0], limit
    return scores.new_empty(shape), scores.new_empty(shape, dtype=torch.int64)
