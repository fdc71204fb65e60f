"""How well features tell objects from background: discriminability and IoF-IoB curves (Zong et al. 2023, section 3.4).

The strength of a map's features, resized to the image and divided by its greatest value, is near 1 where the network
sees something. Over all thresholds, a good encoder is above them inside objects and below them elsewhere.

The article's code is not published. Definitions taken here: maps are resized bilinearly with half-pixel centers; the
greatest value is that inside the image (its padding is cut off first); the foreground is the union of the objects'
boxes, a pixel belonging to a box that holds its center; regions to ignore (crowds) are neither foreground nor
background.
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
    """How strongly each pixel of one image answers: D(F), (h,w) float32 in [0,1].

    Args:
        maps: J feature maps (C,H_j,W_j) of one image.
        canvas: height and width in pixels that the maps span, padding included.
        size: height and width of the image without the padding; the result is cut to it.
    """
    return mean_of_levels([level.float().norm(dim=0) for level in maps], canvas, size)


def mean_of_levels(strengths: Sequence[Tensor], canvas: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Maps (H_j,W_j) >= 0 of one image, each resized and divided by its maximum, averaged: (h,w) float32 in [0,1]."""
    return torch.stack([_scaled(on_image(level, canvas, size)) for level in strengths]).mean(0)


def on_image(level: Tensor, canvas: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """A map (H_j,W_j) over the padded canvas, resized to pixels and cut to the image, (h,w) float32."""
    resized = functional.interpolate(level.float()[None, None], size=canvas, mode="bilinear", align_corners=False)
    return resized[0, 0, : size[0], : size[1]]


def _scaled(strength: Tensor) -> Tensor:
    return strength / strength.max().clamp(min=1e-12)


def covered(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels of an image whose center lies in one of the boxes (n,4) xyxy, (h,w) bool."""
    y, x = (torch.arange(side, device=boxes.device) + 0.5 for side in size)
    rows = (y >= boxes[:, 1:2]) & (y < boxes[:, 3:4])
    columns = (x >= boxes[:, 0:1]) & (x < boxes[:, 2:3])
    return (rows.float().T @ columns.float()) > 0


def iof_iob(
    scores: Tensor, foreground: Tensor, background: Tensor | None = None, thresholds: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """IoF(S), the share of the foreground with scores above S, and IoB(S), the share of the background below S.

    Args:
        scores: (h,w) in [0,1].
        foreground: (h,w) bool.
        background: (h,w) bool, by default all that is not foreground.
        thresholds: (T,), by default ``default_thresholds()``.

    Returns:
        two (T,) float64; NaN where there is no foreground or no background.
    """
    steps = default_thresholds() if thresholds is None else thresholds
    behind = ~foreground if background is None else background
    above, below = counts(scores, foreground, behind, steps)
    return above / max_count(foreground), below / max_count(behind)


def default_thresholds() -> Tensor:
    """101 from 0 to 1, and 230 more from 0.9 on, where maps of normalized encoders lie: (331,) float32, ascending."""
    near, nearest = torch.linspace(0.9, 1, 202)[1:-1], 1 - torch.logspace(-4, -6, 30)
    return torch.cat((torch.linspace(0, 1, STEPS), near, nearest)).sort().values


def max_count(mask: Tensor) -> float:
    """Pixels of a mask; NaN where it has none."""
    return float(mask.sum()) or float("nan")


def counts(scores: Tensor, foreground: Tensor, background: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels of the foreground above and of the background below each threshold, two (T,) float64."""
    steps = thresholds.to(scores)
    inside, outside = scores[foreground].sort().values, scores[background].sort().values
    above = len(inside) - torch.searchsorted(inside, steps, right=True)
    return above.double().cpu(), torch.searchsorted(outside, steps).double().cpu()


def contrast(scores: Tensor, foreground: Tensor, background: Tensor) -> float:
    """Probability that a pixel of the foreground scores above one of the background, ties counting half.

    It needs no threshold: the area under the curve of IoF over 1 - IoB.
    """
    inside, outside = scores[foreground], scores[background].sort().values
    below = torch.searchsorted(outside, inside) + torch.searchsorted(outside, inside, right=True)
    return float(below.double().mean() / (2 * len(outside)))


@dataclass
class Separation:
    """The curves of the images that were added. Images without foreground or background are counted and left out."""

    thresholds: Tensor = field(default_factory=default_thresholds)
    images: int = 0
    without_foreground: int = 0
    without_background: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)  # of each image
    pixels: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64))  # foreground, background
    passed: Tensor = field(default_factory=lambda: torch.zeros(0))  # (2,T) pixels above, below
    shares: Tensor = field(default_factory=lambda: torch.zeros(0))  # (2,T) sums of the images' own shares

    def __post_init__(self) -> None:
        self.passed = torch.zeros(2, len(self.thresholds), dtype=torch.float64)
        self.shares = torch.zeros_like(self.passed)

    def add(self, name: str, scores: Tensor, foreground: Tensor, background: Tensor) -> None:
        """Count one image: ``scores`` (h,w) in [0,1] and two masks (h,w)."""
        if not foreground.any():
            self.without_foreground += 1
            return
        if not background.any():
            self.without_background += 1
            return
        number = torch.tensor([max_count(foreground), max_count(background)], dtype=torch.float64)
        passed = torch.stack(counts(scores, foreground, background, self.thresholds))
        self.images += 1
        self.pixels += number
        self.passed += passed
        self.shares += passed / number[:, None]
        inside, outside = (float(scores[mask].mean()) for mask in (foreground, background))
        told = {"contrast": contrast(scores, foreground, background), "inside": inside, "outside": outside}
        self.rows.append({"image": name, **told})

    def curves(self, pooled: bool = True) -> tuple[Tensor, Tensor]:
        """IoF and IoB (T,): shares of the pixels of all images, or the mean of the images' own shares."""
        both = self.passed / self.pixels[:, None] if pooled else self.shares / self.images
        return both[0], both[1]

    def mean(self, column: str) -> float | None:
        """Mean over images of ``contrast``, ``inside`` or ``outside`` (the mean scores of both masks)."""
        return sum(row[column] for row in self.rows) / self.images if self.images else None

    def to_dict(self) -> dict[str, Any]:
        """All of it in numbers that JSON holds; curves are ``None`` without images."""
        names = {"pooled": True, "mean_of_images": False}
        curves = {
            name: dict(zip(("iof", "iob"), map(rounded, self.curves(p)), strict=True)) for name, p in names.items()
        }
        return {
            "images": self.images,
            "without_foreground": self.without_foreground,
            "without_background": self.without_background,
            **{column: self.mean(column) for column in ("contrast", "inside", "outside")},
            "thresholds": rounded(self.thresholds),
            "curves": curves if self.images else None,
        }


def rounded(values: Tensor, digits: int = 6) -> list[float]:
    """Numbers for JSON."""
    return [round(value, digits) for value in values.tolist()]
