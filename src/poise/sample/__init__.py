"""Samplers: which assigned places are trained on."""

from poise.sample.balanced import InstanceBalanced, IoUBalanced
from poise.sample.combined import (
    PositiveNegativeSampler,
    article_sampler,
    balanced_sampler,
    hard_sampler,
    random_sampler,
)
from poise.sample.ohem import OHEM
from poise.sample.protocol import Request, Sampler, SelectionRule, keep
from poise.sample.random import Uniform
from poise.sample.take_all import TakeAll

__all__ = [
    "SelectionRule",
    "PositiveNegativeSampler",
    "OHEM",
    "InstanceBalanced",
    "IoUBalanced",
    "Request",
    "Sampler",
    "TakeAll",
    "Uniform",
    "article_sampler",
    "balanced_sampler",
    "hard_sampler",
    "keep",
    "random_sampler",
]
