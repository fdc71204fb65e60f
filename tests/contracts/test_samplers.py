"""The contract of samplers (``poise.testing``): every sampler of the list keeps it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from poise.sample import (
    InstanceBalanced,
    IoUBalanced,
    PositiveNegativeSampler,
    TakeAll,
    libra_article_sampler,
    libra_sampler,
    ohem_sampler,
    random_sampler,
)
from poise.testing.samplers import CHECKS, Case

SAMPLERS: dict[str, Any] = {
    "random": random_sampler(64),
    "few_negatives": random_sampler(64, 0.5, negatives_per_positive=2),
    "balanced": libra_sampler(64),
    "article": libra_article_sampler(64),
    "floor": PositiveNegativeSampler(64, 0.25, negatives=IoUBalanced(4, floor=0.1, floor_fraction=0.3)),
    "exact_instances": PositiveNegativeSampler(64, 0.5, positives=InstanceBalanced(exact=True)),
    "hard": ohem_sampler(64),
    "take_all": TakeAll(),
}
CASES = {
    name: Case(sampler)
    if isinstance(sampler, TakeAll)
    else Case(
        sampler,
        sampler.size,
        sampler.positive_fraction,
        exact_positives=name != "balanced",  # as published, it returns fewer
        fills=name != "few_negatives",
        random=name != "hard",
    )
    for name, sampler in SAMPLERS.items()
} | {"take_all": Case(SAMPLERS["take_all"], random=False)}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", SAMPLERS)
def test_contract(name: str, check: Callable[[Case], None]) -> None:
    check(CASES[name])
