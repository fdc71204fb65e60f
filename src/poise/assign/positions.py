"""Where a place lies to an object, for tests that need nothing but positions."""

from __future__ import annotations

import torch
from torch import Tensor


def depths(centers: Tensor, boxes: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """How deep centres (...,2) lie in boxes (...,4), and in squares of ``reach`` (...) px around the boxes' centres.

    Shapes broadcast; positive strictly inside.
    """
    x, y = centers.unbind(-1)
    x1, y1, x2, y2 = boxes.unbind(-1)
    depth = torch.minimum(torch.minimum(x - x1, x2 - x), torch.minimum(y - y1, y2 - y))
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    margin = torch.minimum(
        torch.minimum(x - (cx - reach), (cx + reach) - x), torch.minimum(y - (cy - reach), (cy + reach) - y)
    )
    return depth, margin
