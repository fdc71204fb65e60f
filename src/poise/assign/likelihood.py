"""Soft assignment by the likelihood of bags: what AutoAssign and FreeAnchor have in common.

An object's bag is the places that may answer to it. How likely the bag finds the object is a mean over its places,
weighted by how well each does; the loss is the logarithm of that mean. So gradients flow through the weighting as
well: they are carried by sums over places, one number an object, and the weights of single places are reported
without.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from poise.structures import PairWeights

TINY = 1e-12


@dataclass(frozen=True)
class BagWeights(PairWeights):
    """``positive`` and ``negative`` without gradient, and what is learned of each object's bag."""

    likelihood: Tensor  # (B,G) in [0,1]: the weighted mean; carries gradient
    mass: Tensor  # (B,G): what the bag holds, the number of its places or the sum of their prior weights


@dataclass(frozen=True)
class CenteredBags(BagWeights):
    """Bags of a center prior: ``mass`` is the sum of its weights, and carries the gradient of a learned one."""


def in_slices(function: Callable[[slice], tuple[Tensor, ...]], slices: list[slice]) -> tuple[Tensor, ...]:
    """Results of ``function(part)`` for slices of the objects, joined along axis 1.

    Where there are several, what the backward pass needs is computed again instead of kept.
    """
    if len(slices) == 1 or not torch.is_grad_enabled():
        parts = [function(part) for part in slices]
    else:
        parts = [checkpoint(function, part, use_reentrant=False) for part in slices]
    return tuple(torch.cat(column, 1) for column in zip(*parts, strict=True))


def negative_log(likelihood: Tensor) -> Tensor:
    """-ln of (...) likelihoods, 100 and without gradient where nothing is likely (as the originals' cross-entropy)."""
    possible = likelihood > 0
    return -torch.where(possible, torch.where(possible, likelihood, 1.0).log(), -100.0).clamp(min=-100)


def negative_log_rest(probability: Tensor) -> Tensor:
    """-ln(1 - p) of (...) probabilities, 100 and without gradient where p is 1 (as above)."""
    certain = probability >= 1
    return -torch.where(certain, -100.0, torch.log1p(-torch.where(certain, 0.0, probability)))
