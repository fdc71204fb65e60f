"""Samplers: which assigned places are trained on."""

from poise.sample.balanced import InstanceBalanced, IoUBalanced
from poise.sample.combined import Combined, article_sampler, balanced_sampler, hard_sampler, random_sampler
from poise.sample.ohem import Hardest
from poise.sample.protocol import Chooser, Request, Sampler, keep
from poise.sample.random import Uniform
from poise.sample.take_all import TakeAll

__all__ = [
    "Chooser",
    "Combined",
    "Hardest",
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
