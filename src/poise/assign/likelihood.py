"""Soft assignment by the likelihood of bags: what AutoAssign and FreeAnchor have in common.

The bag of an object are the priors that may find it. The likelihood that the bag finds the object is a mean over its
priors, weighted by how well each does; the loss is the negative logarithm of that mean. Gradients flow through the
weights as well: they are carried by sums over priors, one number for each object; the weights of single priors are
reported without gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.structures import PairWeights


@dataclass(frozen=True)
class BagWeights(PairWeights):
    """``positive`` and ``negative`` without gradient, and the likelihood of each object's bag."""

    carries_gradient = True
    likelihood: Tensor  # (B,G) in [0,1]: the weighted mean; carries gradient
    mass: Tensor  # (B,G): size of the bag, the number of its priors or the sum of their center priors


@dataclass(frozen=True)
class CenteredBags(BagWeights):
    """Bags of a center prior: ``mass`` is the sum of its weights and carries the gradient of a learned one."""


def negative_log(likelihood: Tensor) -> Tensor:
    """-ln of (...) likelihoods, at most 100 and there without gradient (as the originals' cross-entropy)."""
    possible = likelihood > 0
    return -torch.where(possible, torch.where(possible, likelihood, 1.0).log(), -100.0).clamp(min=-100)


def negative_log_rest(probability: Tensor) -> Tensor:
    """-ln(1 - p) of (...) probabilities, 100 and without gradient where p is 1 (as above)."""
    is_one = probability >= 1
    return -torch.where(is_one, -100.0, torch.log1p(-torch.where(is_one, 0.0, probability)))
