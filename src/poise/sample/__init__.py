"""Samplers: the selection of the assigned priors that the losses use."""

from poise.sample.balanced import InstanceBalanced, IoUBalanced
from poise.sample.combined import (
    PositiveNegativeSampler,
    RandomSelection,
    libra_article_sampler,
    libra_sampler,
    ohem_sampler,
    random_sampler,
)
from poise.sample.ohem import OHEM
from poise.sample.protocol import Sampler, SelectionRequest, SelectionRule, restrict_to_sample
from poise.sample.take_all import TakeAll

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
    "restrict_to_sample",
    "random_sampler",
]
