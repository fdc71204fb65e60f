"""Similarities of boxes in place of the IoU, which vanishes or jumps with every pixel where objects are tiny.

Each maps boxes (...,4) in xyxy pixels, whose shapes broadcast, to values in [0,1], 1 for equal boxes.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from poise.boxes import EPS, iou, squared_gcd_along, xyxy_to_cxcywh
from poise.suggestions import did_you_mean

Similarity = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class NWD:
    """The normalized Wasserstein distance of Gaussians, exp(-W / C) (Wang et al. 2021, arXiv 2110.13389).

    W^2 is the squared difference of the centers and of half the sides. C is a size in pixels, such as the mean size of
    the objects of a data set.
    """

    scale: float = 12.8  # px, C: the mean size of objects in AI-TOD

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"{self}: the scale in pixels must be positive")

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        (ax, ay, aw, ah), (bx, by, bw, bh) = xyxy_to_cxcywh(a).unbind(-1), xyxy_to_cxcywh(b).unbind(-1)
        squared = (ax - bx).square() + (ay - by).square() + ((aw - bw).square() + (ah - bh).square()) / 4
        return (-squared.sqrt() / self.scale).exp()


@dataclass(frozen=True)
class SimD:
    """The similarity distance exp(-(location + shape)) (Shi et al. 2024, arXiv 2407.02394).

    Both terms are lengths of differences, of centers and of sides, each axis divided by the sum of the two widths
    (heights) over ``m`` (``n``). The article learns m and n as the means of |dx| / (w + w') and |dy| / (h + h') over
    the data set.
    """

    m: float = 6.13  # AI-TOD
    n: float = 4.59

    def __post_init__(self) -> None:
        if min(self.m, self.n) <= 0:
            raise ValueError(f"{self}: m and n must be positive")

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        (ax, ay, aw, ah), (bx, by, bw, bh) = xyxy_to_cxcywh(a).unbind(-1), xyxy_to_cxcywh(b).unbind(-1)
        across, along = (aw + bw).clamp(min=EPS) / self.m, (ah + bh).clamp(min=EPS) / self.n
        location = (((ax - bx) / across).square() + ((ay - by) / along).square()).sqrt()
        shape = (((aw - bw) / across).square() + ((ah - bh) / along).square()).sqrt()
        return (-(location + shape)).exp()


@dataclass(frozen=True)
class GCD:
    """The Gaussian combined distance exp(-sqrt(D^2)) (Guan et al. 2025, arXiv 2510.27649), independent of the scale."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        (ax, ay, *a_sizes), (bx, by, *b_sizes) = xyxy_to_cxcywh(a).unbind(-1), xyxy_to_cxcywh(b).unbind(-1)
        (aw, ah), (bw, bh) = ([size.clamp(min=EPS) for size in sizes] for sizes in (a_sizes, b_sizes))
        return (-(squared_gcd_along(ax - bx, aw, bw) + squared_gcd_along(ay - by, ah, bh)).sqrt()).exp()


def similarity_of(similarity: Similarity | None, a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU, or another similarity, which is 0 for boxes that are not finite."""
    if similarity is None:
        return iou(a, b)
    return torch.nan_to_num(similarity(a, b), nan=0.0)


SIMILARITIES: dict[str, type[NWD | SimD | GCD]] = {"nwd": NWD, "simd": SimD, "gcd": GCD}


def similarity_named(text: str) -> Similarity | None:
    """Return the similarity of a text such as ``"nwd(scale=16.0)"``; None for ``"iou"``.

    Raises:
        ValueError: an unknown name or option, or a value that is not a positive number.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        name = ast.unparse(call.func)
        options = {str(one.arg): float(ast.literal_eval(one.value)) for one in call.keywords}
    except (SyntaxError, ValueError, TypeError) as error:
        raise ValueError(
            f"similarity '{text}': write a name, or a name with numbers such as nwd(scale=16.0)"
        ) from error
    if name == "iou" and not options:
        return None
    if name not in SIMILARITIES:
        known = ["iou", *SIMILARITIES]
        raise ValueError(f"no similarity '{text}'{did_you_mean(name, known)}; there are {', '.join(known)}")
    made = SIMILARITIES[name]
    own = [field.name for field in fields(made)]
    if call.args or set(options) - set(own):
        raise ValueError(f"similarity '{text}': {name} has the options {', '.join(own) or 'none'}, given by name")
    return made(**options)
