"""The contract of all samplers; a new one is added to the list."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from contracts.data_dependence import DataDependence
from torch import Tensor

from poise.sample import (
    InstanceBalanced,
    IoUBalanced,
    PositiveNegativeSampler,
    TakeAll,
    libra_article_sampler,
    libra_sampler,
    ohem_sampler,
    random_sampler,
    restrict_to_sample,
)
from poise.structures import Assignment, Sample

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
PRIORS = 300
DETERMINISTIC = ("hard", "take_all")

pytestmark = pytest.mark.parametrize("name", SAMPLERS)


def scene(
    positive: float = 0.2, ignored: float = 0.1, seed: int = 0, priors: int = PRIORS
) -> tuple[Assignment, Tensor]:
    """A random assignment of two images, and a loss for each prior."""
    generator = torch.Generator().manual_seed(seed)
    draw, kind = torch.rand(2, 2, priors, generator=generator)
    selected = kind < positive
    quality = torch.where(selected, 0.5 + draw / 2, (draw - 0.4).clamp(min=0) * 0.8)
    index = torch.randint(6, (2, priors), generator=generator)
    return Assignment(index, selected, ~selected & (kind > 1 - ignored), quality), draw


def run(name: str, assignment: Assignment, loss: Tensor, seed: int = 0) -> Sample:
    return SAMPLERS[name](assignment, torch.Generator().manual_seed(seed), loss)


def masks(assignment: Assignment, sample: Sample) -> tuple[Tensor, Tensor]:
    """Return sampled positives and negatives as (B,N) masks, and check that no prior is sampled twice."""
    times = torch.zeros_like(assignment.index).scatter_add(1, sample.index, sample.mask.long())
    assert int(times.max()) <= 1
    return assignment.positive & (times > 0), assignment.negative & (times > 0)


def test_no_ignored_prior_and_none_twice(name: str) -> None:
    assignment, loss = scene()
    sample = run(name, assignment, loss)
    assert 0 <= int(sample.index.min()) and int(sample.index.max()) < PRIORS
    assert not (assignment.ignored.gather(1, sample.index) & sample.mask).any()
    positive, negative = masks(assignment, sample)
    assert torch.equal((positive | negative).sum(1), sample.mask.sum(1))
    kept = restrict_to_sample(assignment, sample)
    assert torch.equal(kept.positive.sum(1), positive.sum(1))
    assert torch.equal(kept.negative.sum(1), negative.sum(1))
    assert torch.equal(kept.ignored, ~sample.mask)


def test_numbers(name: str) -> None:
    assignment, loss = scene(positive=0.5)
    positive, negative = masks(assignment, run(name, assignment, loss))
    sampler = SAMPLERS[name]
    if isinstance(sampler, TakeAll):
        assert torch.equal(positive, assignment.positive)
        assert torch.equal(negative, assignment.negative)
        return
    most = int(sampler.size * sampler.positive_fraction)
    assert int(positive.sum(1).max()) <= most
    if name not in ("balanced",):  # as published, it returns fewer
        assert positive.sum(1).tolist() == [most] * 2
    if sampler.negatives_per_positive < 0:
        assert (positive.sum(1) + negative.sum(1)).tolist() == [sampler.size] * 2


def test_all_where_there_are_no_more_than_wanted(name: str) -> None:
    assignment, loss = scene(positive=0.1, ignored=0.5, priors=40)
    positive, negative = masks(assignment, run(name, assignment, loss))
    assert torch.equal(positive, assignment.positive)
    if name != "few_negatives":
        assert torch.equal(negative, assignment.negative)


@pytest.mark.parametrize(("positive", "ignored"), [(0.0, 0.1), (1.0, 0.0), (0.0, 1.0)])
def test_no_positives_no_negatives_nothing_at_all(name: str, positive: float, ignored: float) -> None:
    assignment, loss = scene(positive, ignored)
    selected = masks(assignment, run(name, assignment, loss))
    assert bool(selected[0].any()) == (positive > 0)
    assert bool(selected[1].any()) == (positive + ignored < 1)


def test_overlaps_of_nothing_are_sampled_all_the_same(name: str) -> None:
    """An image without objects: no overlap at all, so no bins."""
    assignment, loss = scene(0.0)
    bare = Assignment(assignment.index, assignment.positive, assignment.ignored, torch.zeros_like(loss))
    positive, negative = masks(bare, run(name, bare, loss))
    assert not positive.any()
    assert negative.sum(1).tolist() == run(name, bare, loss).mask.sum(1).tolist()
    assert int(negative.sum(1).min()) >= 2


def test_the_generator_decides(name: str) -> None:
    assignment, loss = scene()
    first, again, other = (run(name, assignment, loss, seed) for seed in (1, 1, 2))
    assert torch.equal(first.index, again.index)
    assert torch.equal(first.mask, again.mask)
    if name not in DETERMINISTIC:
        assert not torch.equal(first.index, other.index)


def test_no_operation_depends_on_the_data(name: str) -> None:
    assignment, loss = scene()
    with DataDependence() as counted:
        run(name, assignment, loss)
    assert not counted.found, dict(counted.found)


def test_one_graph(name: str) -> None:
    assignment, loss = scene()
    torch._dynamo.reset()
    compiled = torch.compile(SAMPLERS[name].__call__, backend="eager", fullgraph=True)
    samples = []
    for function in (compiled, SAMPLERS[name]):
        torch.manual_seed(3)
        samples.append(function(assignment, None, loss))
    assert torch.equal(samples[0].index, samples[1].index)
    assert torch.equal(samples[0].mask, samples[1].mask)


def test_qualities_that_are_not_finite_are_survived(name: str) -> None:
    assignment, loss = scene()
    assignment.quality[0, :5], loss[0, 3:9] = torch.nan, torch.nan
    positive, negative = masks(assignment, run(name, assignment, loss))
    assert positive[0].any()
    assert negative[0].any()
