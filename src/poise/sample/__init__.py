"""Samplers: the selection of the assigned priors that the losses use."""

from poise.sample.balanced import InstanceBalanced, IoUBalanced, libra_article_sampler, libra_sampler
from poise.sample.ohem import OHEM, ohem_sampler
from poise.sample.sampler import (
    PositiveNegativeSampler,
    RandomSelection,
    Sampler,
    SelectionRequest,
    SelectionRule,
    TakeAll,
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
