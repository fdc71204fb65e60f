"""Contracts of parts as functions: a package checks its own parts as poise checks its own.

Each function runs a list of checks and raises ``BrokenContract``, an ``AssertionError`` that names the broken promise::

    def test_contract():
        check_assigner(MyAssigner())
"""

from poise.testing.assigners import check_assigner
from poise.testing.checks import BrokenContract
from poise.testing.criteria import check_criterion
from poise.testing.dataset_formats import check_dataset_format
from poise.testing.models import check_model
from poise.testing.samplers import check_sampler

__all__ = [
    "BrokenContract",
    "check_assigner",
    "check_criterion",
    "check_dataset_format",
    "check_model",
    "check_sampler",
]
