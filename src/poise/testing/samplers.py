"""The contract of samplers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.sample import Sampler
from poise.structures import Assignment, Sample
from poise.testing.checks import run_checks
from poise.testing.data_dependence import DataDependence

PRIORS = 300


@dataclass(frozen=True)
class Case:
    """A sampler and what it states about its numbers; see :func:`check_sampler`."""

    sampler: Sampler
    size: int | None = None
    positive_fraction: float = 1.0
    exact_positives: bool = True
    fills: bool = True
    random: bool = True


def check_sampler(
    sampler: Sampler,
    *,
    size: int | None = None,
    positive_fraction: float = 1.0,
    exact_positives: bool = True,
    fills: bool = True,
    random: bool = True,
) -> None:
    """Check that a sampler keeps the contract of samplers.

    Args:
        sampler: a value such as ``random_sampler(64)``.
        size: number of priors of an image that it selects, below 300; None: all that are not ignored.
        positive_fraction: largest fraction of positives.
        exact_positives: it selects as many positives as it may where there are enough.
        fills: it selects ``size`` priors where there are enough.
        random: another state of the generator gives another sample.

    Raises:
        BrokenContract: a promise is broken; the message says which.
    """
    case = Case(sampler, size, positive_fraction, exact_positives, fills, random)
    run_checks(f"sampler {type(sampler).__name__}", CHECKS, case)


def scene(
    positive: float = 0.2, ignored: float = 0.1, seed: int = 0, priors: int = PRIORS
) -> tuple[Assignment, Tensor]:
    """Return a random assignment of two images, and a loss for each prior."""
    generator = torch.Generator().manual_seed(seed)
    draw, kind = torch.rand(2, 2, priors, generator=generator)
    selected = kind < positive
    quality = torch.where(selected, 0.5 + draw / 2, (draw - 0.4).clamp(min=0) * 0.8)
    index = torch.randint(6, (2, priors), generator=generator)
    return Assignment(index, selected, ~selected & (kind > 1 - ignored), quality), draw


def run(case: Case, assignment: Assignment, loss: Tensor, seed: int = 0) -> Sample:
    """Return the sample with a generator of this seed."""
    return case.sampler(assignment, torch.Generator().manual_seed(seed), loss)


def masks(assignment: Assignment, sample: Sample) -> tuple[Tensor, Tensor]:
    """Return sampled positives and negatives as (B,N) masks, and check that no prior is sampled twice."""
    times = torch.zeros_like(assignment.index).scatter_add(1, sample.index, sample.mask.long())
    assert int(times.max()) <= 1
    return assignment.positive & (times > 0), assignment.negative & (times > 0)


def no_ignored_prior_and_none_twice(case: Case) -> None:
    """No ignored prior is selected, and no prior twice."""
    assignment, loss = scene()
    sample = run(case, assignment, loss)
    assert 0 <= int(sample.index.min()) and int(sample.index.max()) < PRIORS
    assert not (assignment.ignored.gather(1, sample.index) & sample.mask).any()
    positive, negative = masks(assignment, sample)
    assert torch.equal((positive | negative).sum(1), sample.mask.sum(1))
    kept = assignment.sampled(sample)
    assert torch.equal(kept.positive.sum(1), positive.sum(1))
    assert torch.equal(kept.negative.sum(1), negative.sum(1))
    assert torch.equal(kept.ignored, ~sample.mask)


def numbers(case: Case) -> None:
    """At most ``size`` priors are selected, and at most ``positive_fraction`` of them are positive."""
    assignment, loss = scene(positive=0.5)
    positive, negative = masks(assignment, run(case, assignment, loss))
    if case.size is None:
        assert torch.equal(positive, assignment.positive)
        assert torch.equal(negative, assignment.negative)
        return
    max_positives = int(case.size * case.positive_fraction)
    assert int(positive.sum(1).max()) <= max_positives
    if case.exact_positives:
        assert positive.sum(1).tolist() == [max_positives] * 2
    if case.fills:
        assert (positive.sum(1) + negative.sum(1)).tolist() == [case.size] * 2


def all_where_there_are_no_more_than_wanted(case: Case) -> None:
    """All priors are selected where there are no more than wanted."""
    assignment, loss = scene(positive=0.1, ignored=0.5, priors=40)
    positive, negative = masks(assignment, run(case, assignment, loss))
    assert torch.equal(positive, assignment.positive)
    if case.fills:
        assert torch.equal(negative, assignment.negative)


def no_positives_no_negatives_nothing_at_all(case: Case) -> None:
    """Images without positives, without negatives and with ignored priors alone are sampled."""
    for positive, ignored in ((0.0, 0.1), (1.0, 0.0), (0.0, 1.0)):
        assignment, loss = scene(positive, ignored)
        selected = masks(assignment, run(case, assignment, loss))
        assert bool(selected[0].any()) == (positive > 0)
        assert bool(selected[1].any()) == (positive + ignored < 1)


def overlaps_of_nothing_are_sampled_all_the_same(case: Case) -> None:
    """An image without objects, where every quality is 0, is sampled."""
    assignment, loss = scene(0.0)
    bare = Assignment(assignment.index, assignment.positive, assignment.ignored, torch.zeros_like(loss))
    positive, negative = masks(bare, run(case, bare, loss))
    assert not positive.any()
    assert negative.sum(1).tolist() == run(case, bare, loss).mask.sum(1).tolist()
    assert int(negative.sum(1).min()) >= 2


def the_generator_decides(case: Case) -> None:
    """The generator alone decides: equal states give equal samples."""
    assignment, loss = scene()
    first, again, other = (run(case, assignment, loss, seed) for seed in (1, 1, 2))
    assert torch.equal(first.index, again.index)
    assert torch.equal(first.mask, again.mask)
    if case.random:
        assert not torch.equal(first.index, other.index)


def no_operation_depends_on_the_data(case: Case) -> None:
    """No operation waits for values: no item(), nonzero() or boolean indexing."""
    assignment, loss = scene()
    with DataDependence() as counted:
        run(case, assignment, loss)
    assert not counted.found, dict(counted.found)


def one_graph(case: Case) -> None:
    """torch.compile traces the call as one graph, with the same sample."""
    assignment, loss = scene()
    torch._dynamo.reset()
    compiled = torch.compile(case.sampler.__call__, backend="eager", fullgraph=True)
    samples = []
    for function in (compiled, case.sampler):
        torch.manual_seed(3)
        samples.append(function(assignment, None, loss))
    assert torch.equal(samples[0].index, samples[1].index)
    assert torch.equal(samples[0].mask, samples[1].mask)


def qualities_that_are_not_finite_are_survived(case: Case) -> None:
    """Qualities and losses that are not finite leave the rest of the sample."""
    assignment, loss = scene()
    assignment.quality[0, :5], loss[0, 3:9] = torch.nan, torch.nan
    positive, negative = masks(assignment, run(case, assignment, loss))
    assert positive[0].any()
    assert negative[0].any()


CHECKS = (
    no_ignored_prior_and_none_twice,
    numbers,
    all_where_there_are_no_more_than_wanted,
    no_positives_no_negatives_nothing_at_all,
    overlaps_of_nothing_are_sampled_all_the_same,
    the_generator_decides,
    no_operation_depends_on_the_data,
    qualities_that_are_not_finite_are_survived,
    one_graph,  # last: it takes longest
)
