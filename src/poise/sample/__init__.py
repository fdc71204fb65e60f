"""Samplers: the selection of the assigned priors that the losses use."""

from poise.sample.ohem import OHEM, ohem_sampler
from poise.sample.sampler import (
    InstanceBalanced,
    IoUBalanced,
    PositiveNegativeSampler,
    RandomSelection,
    Sampler,
    SelectionRequest,
    SelectionRule,
    TakeAll,
    libra_article_sampler,
    libra_sampler,
    random_sampler,
)

__all__ = [
    "SelectionRule",
    "PositiveNegativeSampler",
    "OHEM",
    "InstanceBalanced",
    "IoUBalanced",
    "SelectionRequest",
    "Sampler",
    "TakeAll",
    "RandomSelection",
    "libra_article_sampler",
    "libra_sampler",
    "ohem_sampler",
    "random_sampler",
]
