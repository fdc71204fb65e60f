"""Separation of objects and background by features: discriminability and IoF-IoB (Zong et al. 2023, section 3.4).

The discriminability score of a pixel is the norm of the features there, resized to the image and divided by its
maximum. Over thresholds S, IoF(S) is the fraction of the foreground with scores above S and IoB(S) the fraction of the
background with scores below S; good features keep both high.

The article's code is not published. Definitions used here: maps are resized bilinearly with half-pixel centers; the
maximum is taken inside the image, after its padding is cropped; the foreground is the union of the objects' boxes, and
a pixel belongs to a box that contains its center; ignored regions (crowds) are neither foreground nor background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

STEPS = 101  # evenly spaced thresholds


def discriminability(maps: Sequence[Tensor], canvas: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Discriminability scores D(F) of one image, (h,w) float32 in [0,1].

    Args:
        maps: J feature maps (C,H_j,W_j) of one image.
        canvas: height and width in pixels that the maps span, padding included.
        size: height and width of the image without the padding, to which the result is cropped.
    """
    return average_levels([level.float().norm(dim=0) for level in maps], canvas, size)


def average_levels(levels: Sequence[Tensor], canvas: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Resize maps (H_j,W_j) >= 0 of one image, divide each by its maximum, and average: (h,w) float32 in [0,1]."""
    return torch.stack([_divide_by_max(resize_to_image(level, canvas, size)) for level in levels]).mean(0)


def resize_to_image(level: Tensor, canvas: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Resize a map (H_j,W_j) over the padded canvas to pixels and crop it to the image, (h,w) float32."""
    resized = functional.interpolate(level.float()[None, None], size=canvas, mode="bilinear", align_corners=False)
    return resized[0, 0, : size[0], : size[1]]


def _divide_by_max(values: Tensor) -> Tensor:
    return values / values.max().clamp(min=1e-12)


def box_mask(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels of an image whose center lies in one of the boxes (n,4) xyxy, (h,w) bool."""
    y, x = (torch.arange(side, device=boxes.device) + 0.5 for side in size)
    rows = (y >= boxes[:, 1:2]) & (y < boxes[:, 3:4])
    columns = (x >= boxes[:, 0:1]) & (x < boxes[:, 2:3])
    return (rows.float().T @ columns.float()) > 0


def iof_iob(
    scores: Tensor, foreground: Tensor, background: Tensor | None = None, thresholds: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """IoF(S), fraction of the foreground with scores above S; IoB(S), fraction of the background with scores below S.

    Args:
        scores: (h,w) in [0,1].
        foreground: (h,w) bool.
        background: (h,w) bool, by default the complement of the foreground.
        thresholds: (T,), by default ``default_thresholds()``.

    Returns:
        two (T,) float64; NaN where there is no foreground or no background.
    """
    steps = default_thresholds() if thresholds is None else thresholds
    rest = ~foreground if background is None else background
    above, below = count_pixels(scores, foreground, rest, steps)
    return above / count_mask(foreground), below / count_mask(rest)


def default_thresholds() -> Tensor:
    """101 from 0 to 1 and 230 more above 0.9, where scores of layer-normalized encoders lie: (331,), ascending."""
    near, nearest = torch.linspace(0.9, 1, 202)[1:-1], 1 - torch.logspace(-4, -6, 30)
    return torch.cat((torch.linspace(0, 1, STEPS), near, nearest)).sort().values


def count_mask(mask: Tensor) -> float:
    """Number of pixels of a mask; NaN where it has none."""
    return float(mask.sum()) or float("nan")


def count_pixels(scores: Tensor, foreground: Tensor, background: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Number of foreground pixels above and of background pixels below each threshold, two (T,) float64."""
    steps = thresholds.to(scores)
    inside, outside = scores[foreground].sort().values, scores[background].sort().values
    above = len(inside) - torch.searchsorted(inside, steps, right=True)
    return above.double().cpu(), torch.searchsorted(outside, steps).double().cpu()


def contrast(scores: Tensor, foreground: Tensor, background: Tensor) -> float:
    """Probability that a foreground pixel has a higher score than a background pixel, ties counted half.

    It needs no threshold: it is the area under the curve of IoF over 1 - IoB.
    """
    inside, outside = scores[foreground], scores[background].sort().values
    below = torch.searchsorted(outside, inside) + torch.searchsorted(outside, inside, right=True)
    return float(below.double().mean() / (2 * len(outside)))


@dataclass
class Separation:
    """IoF-IoB curves accumulated over images. Images without foreground or background are counted and left out."""

    thresholds: Tensor = field(default_factory=default_thresholds)
    images: int = 0
    without_foreground: int = 0
    without_background: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)  # of each image
    pixels: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64))  # foreground, background
    pixel_counts: Tensor = field(init=False)  # (2,T) foreground above, background below
    fraction_sums: Tensor = field(init=False)  # (2,T) IoF and IoB of each image, summed

    def __post_init__(self) -> None:
        self.pixel_counts = torch.zeros(2, len(self.thresholds), dtype=torch.float64)
        self.fraction_sums = torch.zeros_like(self.pixel_counts)

    def add(self, name: str, scores: Tensor, foreground: Tensor, background: Tensor) -> None:
        """Add one image: ``scores`` (h,w) in [0,1] and two masks (h,w)."""
        if not foreground.any():
            self.without_foreground += 1
            return
        if not background.any():
            self.without_background += 1
            return
        pixels = torch.tensor([count_mask(foreground), count_mask(background)], dtype=torch.float64)
        counts = torch.stack(count_pixels(scores, foreground, background, self.thresholds))
        self.images += 1
        self.pixels += pixels
        self.pixel_counts += counts
        self.fraction_sums += counts / pixels[:, None]
        inside, outside = (float(scores[mask].mean()) for mask in (foreground, background))
        row = {"contrast": contrast(scores, foreground, background), "inside": inside, "outside": outside}
        self.rows.append({"image": name, **row})

    def curves(self, pooled: bool = True) -> tuple[Tensor, Tensor]:
        """IoF and IoB (T,) of the pixels of all images together, or the mean of the curves of the images."""
        both = self.pixel_counts / self.pixels[:, None] if pooled else self.fraction_sums / self.images
        return both[0], both[1]

    def mean(self, column: str) -> float | None:
        """Mean over images of ``contrast``, ``inside`` or ``outside`` (mean scores of foreground and background)."""
        return sum(row[column] for row in self.rows) / self.images if self.images else None

    def to_dict(self) -> dict[str, Any]:
        """Numbers for JSON; curves are ``None`` without images."""
        names = {"pooled": True, "mean_of_images": False}
        curves = {
            name: dict(zip(("iof", "iob"), map(round_values, self.curves(pooled)), strict=True))
            for name, pooled in names.items()
        }
        return {
            "images": self.images,
            "without_foreground": self.without_foreground,
            "without_background": self.without_background,
            **{column: self.mean(column) for column in ("contrast", "inside", "outside")},
            "thresholds": round_values(self.thresholds),
            "curves": curves if self.images else None,
        }


def round_values(values: Tensor, digits: int = 6) -> list[float]:
    """Rounded numbers for JSON."""
    return [round(value, digits) for value in values.tolist()]
