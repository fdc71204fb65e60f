"""Which priors become customized positive queries: positives before negatives, maximum, minimum, equal numbers."""

from __future__ import annotations

import pytest
import torch

from poise.detectors.collaboration import PositiveQuerySampler
from poise.structures import Assignment


def assignment_of(positives: list[int], priors: int = 50, ignored: int = 0) -> Assignment:
    positive = torch.arange(priors) < torch.tensor(positives)[:, None]
    ignored_mask = (torch.arange(priors) >= priors - ignored).expand_as(positive)
    return Assignment(
        torch.zeros_like(positive, dtype=torch.int64), positive, ignored_mask & ~positive, positive.float()
    )


@pytest.mark.parametrize("positives, count", [([12, 3], 12), ([2, 0], 9), ([0, 0], 9), ([30, 45], 20)])
def test_as_many_in_every_image(positives: list[int], count: int) -> None:
    assignment = assignment_of(positives)
    sample = PositiveQuerySampler(max_queries=20)(assignment)
    assert sample.mask.sum(1).tolist() == [count] * 2
    for b, number in enumerate(positives):
        chosen = sample.index[b][sample.mask[b]]
        assert len(set(chosen.tolist())) == count
        assert int(assignment.positive[b, chosen].sum()) == min(number, count)


def test_the_lowest_indices_without_randomness() -> None:
    sample = PositiveQuerySampler(max_queries=20, random=False)(assignment_of([3, 12]))
    assert sample.index[0, :12].tolist() == list(range(12))
    assert (
        PositiveQuerySampler(max_queries=5, min_queries=2, random=False)(assignment_of([30, 30])).index.tolist()
        == [list(range(5))] * 2
    )


def test_every_prior_can_be_sampled() -> None:
    torch.manual_seed(0)
    counts = torch.zeros(50)
    for _ in range(200):
        sample = PositiveQuerySampler(max_queries=20, min_queries=9)(assignment_of([3]))
        counts[sample.index[0][sample.mask[0]]] += 1
    assert bool((counts[:3] == 200).all()) and bool((counts[3:] > 5).all())


def test_positives_alone() -> None:
    sample = PositiveQuerySampler(max_queries=20, pad_with_negatives=False)(assignment_of([3, 0]))
    assert sample.mask.sum(1).tolist() == [3, 0]


def test_ignored_priors_are_left_out_and_too_few_do_no_harm() -> None:
    sample = PositiveQuerySampler(max_queries=20)(assignment_of([2, 0], priors=6, ignored=2))
    assert sample.mask.sum(1).tolist() == [4, 4]
    assert int(sample.index[sample.mask].max()) < 4


def test_limits() -> None:
    with pytest.raises(ValueError, match="min_queries"):
        PositiveQuerySampler(max_queries=5, min_queries=9)
