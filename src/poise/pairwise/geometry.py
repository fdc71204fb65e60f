"""Positions of points and boxes relative to boxes; shapes broadcast."""

from __future__ import annotations

import torch
from torch import Tensor


def planar(values: Tensor) -> Tensor:
    """Store values (...,D) coordinate by coordinate, so that ``values[..., i]`` is contiguous (same shape)."""
    return values.movedim(-1, 0).contiguous().movedim(0, -1)


def distance_inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Distance from points (...,2) to the nearest side of boxes (...,4), positive strictly inside."""
    (x, y), (x1, y1, x2, y2) = points.unbind(-1), boxes.unbind(-1)
    return torch.minimum(torch.minimum(x - x1, x2 - x), torch.minimum(y - y1, y2 - y))


def distance_inside_center(points: Tensor, boxes: Tensor, radius: Tensor) -> Tensor:
    """The same of the squares that reach ``radius`` (...) pixels from the centers of the boxes."""
    (x, y), (x1, y1, x2, y2) = points.unbind(-1), boxes.unbind(-1)
    center_x, center_y = (x1 + x2) / 2, (y1 + y2) / 2
    across = torch.minimum(x - (center_x - radius), (center_x + radius) - x)
    return torch.minimum(across, torch.minimum(y - (center_y - radius), (center_y + radius) - y))


def intersect(a: Tensor, b: Tensor) -> Tensor:
    """Whether boxes (...,4) have a common area."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.unbind(-1), b.unbind(-1)
    width = torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)
    return torch.minimum(width, torch.minimum(ay2, by2) - torch.maximum(ay1, by1)) > 0
