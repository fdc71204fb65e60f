"""Geometry of boxes: functions on (...,4) float tensors in xyxy pixels, without loops and in fp32.

Pairwise forms take ``(B,N,4)`` or ``(1,N,4)`` against ``(B,G,4)`` and give ``(B,N,G)``; they are written on
coordinate planes, so that no ``(B,N,G,4)`` tensor is ever made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

EPS = 1e-6  # the smallest area that overlaps divide by, as in the originals


def area(boxes: Tensor) -> Tensor:
    """Area (...), negative sides count as they are (as the originals do)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    center, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat((center - size / 2, center + size / 2), -1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), -1)


def normalize_boxes(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Center x, y, width and height of (B,N,4) xyxy boxes in units of the images' (B,2) heights and widths."""
    return xyxy_to_cxcywh(boxes) / sizes.flip(1).repeat(1, 2)[:, None]


def denormalize_boxes(shares: Tensor, sizes: Tensor) -> Tensor:
    """The inverse of ``normalize_boxes``."""
    return cxcywh_to_xyxy(shares) * sizes.flip(1).repeat(1, 2)[:, None]


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Clip (B,N,4) boxes to (B,2) heights and widths."""
    height, width = sizes[:, 0, None], sizes[:, 1, None]
    zero = torch.zeros_like(height)
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack(
        (
            x1.clamp(min=zero, max=width),
            y1.clamp(min=zero, max=height),
            x2.clamp(min=zero, max=width),
            y2.clamp(min=zero, max=height),
        ),
        -1,
    )


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union of boxes whose shapes broadcast."""
    width = (torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])).clamp(min=0)
    height = (torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])).clamp(min=0)
    intersection = width * height
    return intersection, area(a) + area(b) - intersection


def _enclosure(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Width and height of the smallest box around both."""
    width = torch.maximum(a[..., 2], b[..., 2]) - torch.minimum(a[..., 0], b[..., 0])
    height = torch.maximum(a[..., 3], b[..., 3]) - torch.minimum(a[..., 1], b[..., 1])
    return width.clamp(min=0), height.clamp(min=0)


def iou(a: Tensor, b: Tensor, eps: float = EPS) -> Tensor:
    """Intersection over union of boxes whose shapes broadcast, in [0,1]."""
    intersection, union = _overlap(a, b)
    return intersection / union.clamp(min=eps)


def giou(a: Tensor, b: Tensor, eps: float = EPS) -> Tensor:
    """Generalised IoU (Rezatofighi et al. 2019) in [-1,1]."""
    return iou_and_giou(a, b, eps)[1]


def iou_and_giou(a: Tensor, b: Tensor, eps: float = EPS) -> tuple[Tensor, Tensor]:
    """Both of boxes whose shapes broadcast."""
    intersection, union = _overlap(a, b)
    union = union.clamp(min=eps)
    width, height = _enclosure(a, b)
    enclosing = (width * height).clamp(min=eps)
    overlap = intersection / union
    return overlap, overlap - (enclosing - union) / enclosing


def diou(a: Tensor, b: Tensor, eps: float = EPS) -> Tensor:
    """Distance IoU (Zheng et al. 2020) in [-1,1]."""
    width, height = _enclosure(a, b)
    diagonal = width**2 + height**2 + eps
    left = ((b[..., 0] + b[..., 2]) - (a[..., 0] + a[..., 2])) ** 2 / 4
    top = ((b[..., 1] + b[..., 3]) - (a[..., 1] + a[..., 3])) ** 2 / 4
    intersection, union = _overlap(a, b)
    return intersection / (union + eps) - (left + top) / diagonal


def ciou(a: Tensor, b: Tensor, eps: float = EPS) -> Tensor:
    """Complete IoU (Zheng et al. 2020); the weight of the aspect term carries no gradient, as in the original."""
    intersection, union = _overlap(a, b)
    overlap = intersection / (union + eps)
    width_a, height_a = a[..., 2] - a[..., 0], a[..., 3] - a[..., 1] + eps
    width_b, height_b = b[..., 2] - b[..., 0], b[..., 3] - b[..., 1] + eps
    aspect = 4 / math.pi**2 * (torch.atan(width_b / height_b) - torch.atan(width_a / height_a)) ** 2
    with torch.no_grad():
        weight = (overlap > 0.5).float() * aspect / (1 - overlap + aspect).clamp(min=eps)  # equal boxes: 0, not 0/0
    width, height = _enclosure(a, b)
    diagonal = width**2 + height**2 + eps
    left = ((b[..., 0] + b[..., 2]) - (a[..., 0] + a[..., 2])) ** 2 / 4
    top = ((b[..., 1] + b[..., 3]) - (a[..., 1] + a[..., 3])) ** 2 / 4
    return overlap - (left + top) / diagonal - weight * aspect


def pairwise_iou(a: Tensor, b: Tensor, eps: float = EPS) -> Tensor:
    """IoU of every (B,N) box with every (B,G) box, (B,N,G)."""
    return iou(a[..., :, None, :], b[..., None, :, :], eps)


def pairwise_giou(a: Tensor, b: Tensor, eps: float = EPS) -> Tensor:
    """GIoU of every (B,N) box with every (B,G) box, (B,N,G)."""
    return giou(a[..., :, None, :], b[..., None, :, :], eps)


def pairwise_iof(a: Tensor, b: Tensor, eps: float = EPS) -> Tensor:
    """Intersection over the area of ``a`` (foreground), (B,N,G)."""
    a, b = a[..., :, None, :], b[..., None, :, :]
    return _overlap(a, b)[0] / area(a).clamp(min=eps)


def encode_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances l, t, r, b from (...,2) points to the sides of (...,4) boxes."""
    return torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), -1)


def decode_distances(points: Tensor, distances: Tensor) -> Tensor:
    """Boxes from (...,2) points and (...,4) distances l, t, r, b."""
    return torch.cat((points - distances[..., :2], points + distances[..., 2:]), -1)


def depth_inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Least distance of every (B,N,2) point to the sides of every (B,G,4) box, (B,N,G); positive strictly inside."""
    x, y = points[..., 0][..., :, None], points[..., 1][..., :, None]
    x1, y1, x2, y2 = (plane[..., None, :] for plane in boxes.unbind(-1))
    return torch.minimum(torch.minimum(x - x1, x2 - x), torch.minimum(y - y1, y2 - y))


def centerness(centers: Tensor, boxes: Tensor) -> Tensor:
    """sqrt(min(l,r)/max(l,r) * min(t,b)/max(t,b)) of (...,2) points inside (...,4) boxes, 0 outside (FCOS, eq. 3)."""
    low, high = centers - boxes[..., :2], boxes[..., 2:] - centers
    ratio = torch.minimum(low, high).clamp(min=0) / torch.maximum(low, high).clamp(min=1e-12)
    return (ratio[..., 0] * ratio[..., 1]).sqrt()


@dataclass(frozen=True)
class DeltaCoder:
    """Center and log-size offsets from an anchor (Girshick et al. 2014), normalized by ``std``."""

    std: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    max_log_ratio: float = abs(math.log(16 / 1000))

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Offsets (...,4) that turn ``anchors`` into ``boxes``; finite also for empty boxes."""
        ax, ay, aw, ah = xyxy_to_cxcywh(anchors).unbind(-1)
        bx, by, bw, bh = xyxy_to_cxcywh(boxes).unbind(-1)
        smallest = torch.finfo(boxes.dtype).tiny
        return torch.stack(
            (
                (bx - ax) / aw / self.std[0],
                (by - ay) / ah / self.std[1],
                (bw / aw).clamp(min=smallest).log() / self.std[2],
                (bh / ah).clamp(min=smallest).log() / self.std[3],
            ),
            -1,
        )

    def decode(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """Boxes (...,4) from ``anchors`` and offsets."""
        ax, ay, aw, ah = xyxy_to_cxcywh(anchors).unbind(-1)
        dx, dy, dw, dh = deltas.unbind(-1)
        limit = self.max_log_ratio
        cx, cy = ax + aw * (dx * self.std[0]), ay + ah * (dy * self.std[1])
        w = aw * (dw * self.std[2]).clamp(-limit, limit).exp()
        h = ah * (dh * self.std[3]).clamp(-limit, limit).exp()
        return torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), -1)


@dataclass(frozen=True)
class LogDistances:
    """Logarithms of the distances l, t, r, b from a point, in units of ``unit`` strides (Kong et al. 2019, eq. 4)."""

    unit: float = 2.0
    most: float = 16.0  # units that a target may have; 1 / most is the least
    largest_log: float = 16.0  # outputs are cut here, far above any box, so that finite outputs give finite boxes

    def encode(self, points: Tensor, strides: Tensor, boxes: Tensor) -> Tensor:
        """Outputs (...,N,4) that turn (...,N,2) points with (N,) strides into ``boxes``."""
        distances = encode_distances(points, boxes) / (self.unit * strides[:, None])
        return distances.clamp(1 / self.most, self.most).log()

    def decode(self, points: Tensor, strides: Tensor, outputs: Tensor) -> Tensor:
        """Boxes (...,N,4) of outputs (...,N,4)."""
        return decode_distances(points, outputs.clamp(max=self.largest_log).exp() * (self.unit * strides[:, None]))
