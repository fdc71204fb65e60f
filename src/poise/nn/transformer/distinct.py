"""Distinct query selection (DDQ: Zhang et al. 2023, arXiv 2303.12776, section 3): class-agnostic NMS among candidates.

Queries with nearly equal boxes make one-to-one matching ambiguous: which of them is positive changes from step to step.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms

from poise.boxes import cxcywh_to_xyxy

POOL = 4  # candidates of NMS for each query; the article has all tokens, of which NMS would be quadratic
APART = 4.0  # between the images of a batch; normalized boxes lie in (-0.5, 1.5)


def distinct_first(boxes: Tensor, order: Tensor, threshold: float) -> Tensor:
    """Return the candidates (B,P) with those that NMS keeps in front of those that it drops, each in their order.

    Args:
        boxes: (B,N,4) normalized boxes (center x, center y, width, height).
        order: (B,P) int64 indices of candidates, the best first.
        threshold: IoU above which the worse of two boxes is dropped.
    """
    candidates = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    rank = torch.arange(order.shape[1], 0, -1, dtype=torch.float32, device=order.device).expand(order.shape)
    kept = keep_distinct(cxcywh_to_xyxy(candidates.float()), rank, threshold)
    key = torch.where(kept > 0, rank + order.shape[1], rank)
    return order.gather(1, key.sort(dim=1, descending=True, stable=True).indices)


@torch.library.custom_op("poise::keep_distinct", mutates_args=())
def keep_distinct(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Return the positive scores (B,P) of the normalized boxes (B,P,4), xyxy, that NMS keeps in each image; else 0.

    One NMS serves the batch: images lie apart, in float64, in which that changes no difference of coordinates. It
    synchronizes with the device, as every NMS; an operator of its own, so that a compiled step stays one graph.
    """
    image = torch.arange(len(boxes), device=boxes.device, dtype=torch.float64)[:, None, None]
    apart = boxes.nan_to_num(0.0, 1.0, 0.0).double() + APART * image
    index = nms(apart.flatten(0, 1), scores.flatten().double(), threshold)
    return torch.zeros_like(scores).flatten().index_copy(0, index, scores.flatten()[index]).view(scores.shape)


@keep_distinct.register_fake
def _(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    return scores.new_empty(scores.shape)
