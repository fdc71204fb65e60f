"""Sine encodings of positions, and the inverse of the sigmoid that boxes pass through.

Encodings of maps differ between papers in temperature and offset; encodings of boxes in the order of coordinates:
DINO, DAB- and Conditional-DETR encode (y, x, w, h), Deformable-DETR's and Co-DETR's proposals (x, y, w, h).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPS = 1e-6
YXWH, XYWH = (1, 0, 2, 3), (0, 1, 2, 3)  # orders in which coordinates are encoded


def sine(values: Tensor, width: int, temperature: float = 10000.0) -> Tensor:
    """(...) angles to (...,width): sines and cosines, interleaved, of falling frequencies (Vaswani et al. 2017)."""
    steps = torch.arange(width // 2, dtype=torch.float32, device=values.device)
    angles = values[..., None] / temperature ** (2 * steps / width)
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(-2)


def box_sine(boxes: Tensor, width: int, order: tuple[int, ...]) -> Tensor:
    """(...,2|4) points or boxes in shares of the image to (...,2|4 * width), each coordinate ``width`` numbers."""
    count = boxes.shape[-1]
    chosen = torch.stack([boxes[..., i] for i in order[:count]], -1).float()
    return sine(chosen * (2 * math.pi), width).flatten(-2)


def map_sine(rows: Tensor, columns: Tensor, channels: int, temperature: float, offset: float) -> Tensor:
    """Encodings (B,H*W,channels) of a map's cells: half of them say how far down, half how far right.

    Positions run from 0 to 2 pi over the part that the image fills: ``rows`` (B,H) and ``columns`` (B,W) say which
    cells that are. What stands in the padding is not meant to be read.
    """
    y, x = (sine(_progress(axis, offset), channels // 2, temperature) for axis in (rows, columns))
    height, width = y.shape[1], x.shape[1]
    down = y[:, :, None].expand(-1, -1, width, -1)
    right = x[:, None].expand(-1, height, -1, -1)
    return torch.cat((down, right), -1).flatten(1, 2)


def _progress(inside: Tensor, offset: float) -> Tensor:
    """Angle of each cell (B,n) along an axis."""
    count = inside.float().cumsum(1)
    return (count + offset) / (count[:, -1:] + EPS) * (2 * math.pi)


def inverse_sigmoid(value: Tensor, eps: float = 1e-5) -> Tensor:
    """ln(x / (1 - x)) of x in [0,1], both kept from falling below ``eps``."""
    value = value.clamp(0, 1)
    return value.clamp(min=eps).log() - (1 - value).clamp(min=eps).log()
