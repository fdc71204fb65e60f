"""Two normal distributions fitted to a few numbers each, for many objects at once (expectation and maximization)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from poise.pairwise import TINY, none_left

LEAST_VARIANCE = 1e-6  # added to every variance, as the usual implementations do


@dataclass(frozen=True)
class Mixture:
    """Of two components, lower one first: each (...,2,1)."""

    weight: Tensor
    mean: Tensor
    variance: Tensor

    def log_densities(self, values: Tensor) -> Tensor:
        """ln(weight * density) of values (...,1,K) in each component, (...,2,K)."""
        distance = (values - self.mean).square() / self.variance
        return self.weight.log() - 0.5 * (math.log(2 * math.pi) + self.variance.log() + distance)


@torch.library.custom_op("poise::low_component", mutates_args=())
def low_component(
    values: Tensor, counted: Tensor, iterations: int = 100, tolerance: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """Split numbers in two: which belong to the lower component (ties do), and the log-likelihood of each.

    Starts with means at the least and the greatest number, variances 1 and equal weights; stops where the mean
    log-likelihood changes by less than ``tolerance``; what has stopped is kept while others go on, on an accelerator
    for all ``iterations``. Numbers are measured from the least one, so that float32 is enough. To a compiler this is
    one operation, not a hundred iterations of twenty.

    Args:
        values: (...,K), finite where counted.
        counted: (...,K) bool; the results of others mean nothing.
    """
    mixture, values = fit_mixture(values, counted, iterations, tolerance)
    joint = mixture.log_densities(values)
    return joint[..., 0, :] >= joint[..., 1, :], _total(joint).squeeze(-2)


def fit_mixture(
    values: Tensor, counted: Tensor, iterations: int = 100, tolerance: float = 1e-3
) -> tuple[Mixture, Tensor]:
    """Return the components of :func:`low_component`, and the values (...,1,K) as differences from the least one."""
    least = torch.where(counted, values, torch.inf).amin(-1, keepdim=True)
    values = torch.where(counted, values - least, 0.0)[..., None, :]
    share = counted[..., None, :].float()
    share = share / share.sum(-1, keepdim=True).clamp(min=1)
    highest = values.amax(-1, keepdim=True)
    mean = torch.cat((torch.zeros_like(highest), highest), -2)
    mixture = Mixture(torch.full_like(mean, 0.5), mean, torch.ones_like(mean))
    running = torch.ones_like(highest, dtype=torch.bool)
    previous = torch.full_like(highest, -torch.inf)
    for _ in range(iterations):
        joint = mixture.log_densities(values)
        total = _total(joint)
        fitted = _fit(values, (joint - total).exp() * share)
        mixture = Mixture(*(torch.where(running, *pair) for pair in zip(_parts(fitted), _parts(mixture), strict=True)))
        bound = (total * share).sum(-1, keepdim=True)
        running = running & ((bound - previous).abs() >= tolerance)
        previous = bound
        if none_left(running):
            break
    return mixture, values


@low_component.register_fake
def _shapes(values: Tensor, counted: Tensor, iterations: int = 100, tolerance: float = 1e-3) -> tuple[Tensor, Tensor]:
    return torch.empty_like(counted), torch.empty_like(values)


def _total(joint: Tensor) -> Tensor:
    """Logarithm of the sum of both components' densities (...,2,K), (...,1,K); vectorized, as ``logaddexp`` is not."""
    low, high = joint.split(1, -2)
    return torch.maximum(low, high) + softplus(-(low - high).abs())


def _fit(values: Tensor, weight: Tensor) -> Mixture:
    """The components of greatest likelihood, given how much of each value (...,1,K) is whose (...,2,K)."""
    mass = weight.sum(-1, keepdim=True).clamp(min=TINY)
    mean = (weight * values).sum(-1, keepdim=True) / mass
    variance = (weight * (values - mean).square()).sum(-1, keepdim=True) / mass
    return Mixture(mass, mean, variance + LEAST_VARIANCE)


def _parts(mixture: Mixture) -> tuple[Tensor, Tensor, Tensor]:
    return mixture.weight, mixture.mean, mixture.variance
