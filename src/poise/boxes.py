"""Geometry of boxes: functions of (...,4) float32 tensors in xyxy pixels, without loops.

Pairwise functions take ``(B,N,4)`` or ``(1,N,4)`` and ``(B,G,4)`` boxes and return ``(B,N,G)``. They compute with one
tensor per coordinate, so that no ``(B,N,G,4)`` tensor exists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

EPS = 1e-6  # lower bound of the areas that IoU and GIoU divide by, as in the original codes


def area(boxes: Tensor) -> Tensor:
    """Return the area (...), width times height; negative sides are not clamped, as in the original codes."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Convert (center x, center y, width, height) to (x1, y1, x2, y2)."""
    center, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat((center - size / 2, center + size / 2), -1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Convert (x1, y1, x2, y2) to (center x, center y, width, height)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), -1)


def normalize_boxes(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Convert (B,N,4) xyxy pixels to normalized cxcywh boxes in [0,1]; ``sizes`` (B,2) are heights and widths."""
    return xyxy_to_cxcywh(boxes) / sizes.flip(1).repeat(1, 2)[:, None]


def denormalize_boxes(normalized: Tensor, sizes: Tensor) -> Tensor:
    """Convert normalized cxcywh boxes (B,N,4) to xyxy pixels, the inverse of ``normalize_boxes``."""
    return cxcywh_to_xyxy(normalized) * sizes.flip(1).repeat(1, 2)[:, None]


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Clip (B,N,4) boxes to the images; ``sizes`` (B,2) are heights and widths."""
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
    """Return the areas of intersection and union of boxes whose shapes broadcast."""
    width = (torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])).clamp(min=0)
    height = (torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])).clamp(min=0)
    intersection = width * height
    return intersection, area(a) + area(b) - intersection


def _enclosure(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return width and height of the smallest box that encloses both."""
    width = torch.maximum(a[..., 2], b[..., 2]) - torch.minimum(a[..., 0], b[..., 0])
    height = torch.maximum(a[..., 3], b[..., 3]) - torch.minimum(a[..., 1], b[..., 1])
    return width.clamp(min=0), height.clamp(min=0)


def iou(a: Tensor, b: Tensor, eps: float = EPS) -> Tensor:
    """Return the intersection over union (IoU) in [0,1] of boxes whose shapes broadcast."""
    intersection, union = _overlap(a, b)
    return intersection / union.clamp(min=eps)


def giou(a: Tensor, b: Tensor, eps: float = EPS) -> Tensor:
    """Return the generalized IoU (Rezatofighi et al. 2019) in [-1,1]."""
    return iou_and_giou(a, b, eps)[1]


def iou_and_giou(a: Tensor, b: Tensor, eps: float = EPS) -> tuple[Tensor, Tensor]:
    """Return IoU and generalized IoU of boxes whose shapes broadcast."""
    intersection, union = _overlap(a, b)
    union = union.clamp(min=eps)
    width, height = _enclosure(a, b)
    enclosing = (width * height).clamp(min=eps)
    overlap = intersection / union
    return overlap, overlap - (enclosing - union) / enclosing


def diou(a: Tensor, b: Tensor, eps: float = EPS) -> Tensor:
    """Return the distance IoU (Zheng et al. 2020) in [-1,1]."""
    width, height = _enclosure(a, b)
    diagonal = width**2 + height**2 + eps
    left = ((b[..., 0] + b[..., 2]) - (a[..., 0] + a[..., 2])) ** 2 / 4
    top = ((b[..., 1] + b[..., 3]) - (a[..., 1] + a[..., 3])) ** 2 / 4
    intersection, union = _overlap(a, b)
    return intersection / (union + eps) - (left + top) / diagonal


def ciou(a: Tensor, b: Tensor, eps: float = EPS) -> Tensor:
    """Return the complete IoU (Zheng et al. 2020); the weight of the aspect term has no gradient, as in their code."""
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


def squared_gcd_along(shift: Tensor, size: Tensor, other: Tensor) -> Tensor:
    """Return one axis of the squared Gaussian combined distance D^2 (Guan et al. 2025, arXiv 2510.27649).

    Boxes count as Gaussians. D^2 is the sum over both axes of (1/size^2 + 1/other^2) / 2 * (shift^2 +
    (size - other)^2 / 4), the mean of both directions: shifts are measured in sizes of the one and of the other box.

    Args:
        shift: difference of the centers along the axis; all shapes broadcast.
        size, other: widths (or heights) of the two boxes, at least ``EPS``.
    """
    return (size**-2 + other**-2) / 2 * (shift.square() + (size - other).square() / 4)


def pairwise_iou(a: Tensor, b: Tensor, eps: float = EPS) -> Tensor:
    """Return the IoU of each (B,N) box with each (B,G) box, (B,N,G)."""
    return iou(a[..., :, None, :], b[..., None, :, :], eps)


def pairwise_iof(a: Tensor, b: Tensor, eps: float = EPS) -> Tensor:
    """Return the intersection over foreground (IoF), the intersection divided by the area of ``a``, (B,N,G)."""
    a, b = a[..., :, None, :], b[..., None, :, :]
    return _overlap(a, b)[0] / area(a).clamp(min=eps)


def encode_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Return the distances l, t, r, b (...,4) from points (...,2) to the sides of boxes (...,4)."""
    return torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), -1)


def decode_distances(points: Tensor, distances: Tensor) -> Tensor:
    """Return the boxes (...,4) with distances l, t, r, b (...,4) from points (...,2) to their sides."""
    return torch.cat((points - distances[..., :2], points + distances[..., 2:]), -1)


def distance_inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Return the distance from points (...,2) to the nearest side of boxes (...,4), positive strictly inside."""
    (x, y), (x1, y1, x2, y2) = points.unbind(-1), boxes.unbind(-1)
    return torch.minimum(torch.minimum(x - x1, x2 - x), torch.minimum(y - y1, y2 - y))


def distance_inside_center(points: Tensor, boxes: Tensor, radius: Tensor) -> Tensor:
    """Return ``distance_inside`` of the squares that reach ``radius`` (...) pixels from the centers of the boxes."""
    (x, y), (x1, y1, x2, y2) = points.unbind(-1), boxes.unbind(-1)
    center_x, center_y = (x1 + x2) / 2, (y1 + y2) / 2
    across = torch.minimum(x - (center_x - radius), (center_x + radius) - x)
    return torch.minimum(across, torch.minimum(y - (center_y - radius), (center_y + radius) - y))


def with_least_sides(boxes: Tensor, least: float) -> Tensor:
    """Return boxes (...,4) whose sides below ``least`` pixels have grown to it around their centers."""
    if not least:
        return boxes
    center, sizes = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    grown = torch.cat((center - least / 2, center + least / 2), -1)
    return torch.where(torch.cat((sizes, sizes), -1) < least, grown, boxes)


def intersect(a: Tensor, b: Tensor) -> Tensor:
    """Return whether boxes (...,4) whose shapes broadcast have a common area."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.unbind(-1), b.unbind(-1)
    width = torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)
    return torch.minimum(width, torch.minimum(ay2, by2) - torch.maximum(ay1, by1)) > 0


def planar(values: Tensor) -> Tensor:
    """Store values (...,D) coordinate by coordinate, so that ``values[..., i]`` is contiguous (same shape)."""
    return values.movedim(-1, 0).contiguous().movedim(0, -1)


def centerness(centers: Tensor, boxes: Tensor) -> Tensor:
    """Return the centerness (FCOS, eq. 3) of points (...,2) in boxes (...,4), 0 outside.

    sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))
    """
    low, high = centers - boxes[..., :2], boxes[..., 2:] - centers
    ratio = torch.minimum(low, high).clamp(min=0) / torch.maximum(low, high).clamp(min=1e-12)
    return (ratio[..., 0] * ratio[..., 1]).sqrt()


@dataclass(frozen=True)
class DeltaCoder:
    """Offsets of center and log size from an anchor (Girshick et al. 2014), divided by ``std``."""

    std: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    max_log_ratio: float = abs(math.log(16 / 1000))

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Return the offsets (...,4) of ``boxes`` from ``anchors``; finite also for empty boxes."""
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
        """Return the boxes (...,4) with offsets ``deltas`` from ``anchors``."""
        ax, ay, aw, ah = xyxy_to_cxcywh(anchors).unbind(-1)
        dx, dy, dw, dh = deltas.unbind(-1)
        limit = self.max_log_ratio
        cx, cy = ax + aw * (dx * self.std[0]), ay + ah * (dy * self.std[1])
        w = aw * (dw * self.std[2]).clamp(-limit, limit).exp()
        h = ah * (dh * self.std[3]).clamp(-limit, limit).exp()
        return torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), -1)


@dataclass(frozen=True)
class LogDistances:
    """Logarithms of the distances l, t, r, b from a point, in ``unit`` strides (FoveaBox: Kong et al. 2019, eq. 4)."""

    unit: float = 2.0
    max_distance: float = 16.0  # units; targets are clamped to [1 / max_distance, max_distance]
    max_log: float = 16.0  # upper bound of outputs, far above any box, so that finite outputs give finite boxes

    def encode(self, points: Tensor, strides: Tensor, boxes: Tensor) -> Tensor:
        """Return the targets (...,N,4) of ``boxes``, for points (...,N,2) with strides (N,)."""
        distances = encode_distances(points, boxes) / (self.unit * strides[:, None])
        return distances.clamp(1 / self.max_distance, self.max_distance).log()

    def decode(self, points: Tensor, strides: Tensor, outputs: Tensor) -> Tensor:
        """Return the boxes (...,N,4) of outputs (...,N,4)."""
        return decode_distances(points, outputs.clamp(max=self.max_log).exp() * (self.unit * strides[:, None]))
