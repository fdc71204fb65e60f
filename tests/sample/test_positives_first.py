"""Which places are lent: positives before negatives, caps, minimum, and numbers of images in step."""

from __future__ import annotations

import pytest
import torch

from poise.sample.positives_first import PositivesFirst
from poise.structures import Assignment


def assignment_of(positives: list[int], places: int = 50, ignored: int = 0) -> Assignment:
    positive = torch.arange(places) < torch.tensor(positives)[:, None]
    aside = (torch.arange(places) >= places - ignored).expand_as(positive)
    return Assignment(torch.zeros_like(positive, dtype=torch.int64), positive, aside & ~positive, positive.float())


@pytest.mark.parametrize("positives, count", [([12, 3], 12), ([2, 0], 9), ([0, 0], 9), ([30, 45], 20)])
def test_as_many_in_every_image(positives: list[int], count: int) -> None:
    assignment = assignment_of(positives)
    sample = PositivesFirst(max_queries=20)(assignment)
    assert sample.mask.sum(1).tolist() == [count] * 2
    for b, number in enumerate(positives):
        chosen = sample.index[b][sample.mask[b]]
        assert len(set(chosen.tolist())) == count
        assert int(assignment.positive[b, chosen].sum()) == min(number, count)


def test_the_lowest_indices_without_chance() -> None:
    sample = PositivesFirst(max_queries=20, random=False)(assignment_of([3, 12]))
    assert sample.index[0, :12].tolist() == list(range(12))
    assert (
        PositivesFirst(max_queries=5, min_queries=2, random=False)(assignment_of([30, 30])).index.tolist()
        == [list(range(5))] * 2
    )


def test_chance_reaches_every_place() -> None:
    torch.manual_seed(0)
    seen = torch.zeros(50)
    for _ in range(200):
        sample = PositivesFirst(max_queries=20, min_queries=9)(assignment_of([3]))
        seen[sample.index[0][sample.mask[0]]] += 1
    assert bool((seen[:3] == 200).all()) and bool((seen[3:] > 5).all())


def test_positives_alone() -> None:
    sample = PositivesFirst(max_queries=20, fill=False)(assignment_of([3, 0]))
    assert sample.mask.sum(1).tolist() == [3, 0]


def test_ignored_places_are_not_lent_and_too_few_do_no_harm() -> None:
    sample = PositivesFirst(max_queries=20)(assignment_of([2, 0], places=6, ignored=2))
    assert sample.mask.sum(1).tolist() == [4, 4]
    assert int(sample.index[sample.mask].max()) < 4


def test_limits() -> None:
    with pytest.raises(ValueError, match="min_queries"):
        PositivesFirst(max_queries=5, min_queries=9)
