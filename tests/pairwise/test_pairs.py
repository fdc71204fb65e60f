"""Pairs in their two forms against each other, and against loops."""

from __future__ import annotations

import pytest
import torch
from support.scenes import HEIGHT, POINTS, WIDTH, maps_of, truth_of
from torch import Tensor

from poise.pairwise.pairs import AllPairs, ListedPairs, Pairs, pairs_inside, pairs_of
from poise.structures import GroundTruth, Priors

BATCH = 3


def scene(seed: int) -> tuple[Priors, GroundTruth, ListedPairs, AllPairs]:
    """Listed and all pairs of the same places and objects."""
    priors, truth = POINTS(maps_of(BATCH)), truth_of([5, 0, 12], seed, crowd=True)
    listed = pairs_inside(priors.centers, truth.boxes, truth.valid)
    assert isinstance(listed, ListedPairs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("poise.pairwise.listing.allows_dynamic_shapes", lambda device: False)
        everything = pairs_inside(priors.centers, truth.boxes, truth.valid)
    assert isinstance(everything, AllPairs)
    return priors, truth, listed, everything


def test_the_pairs_are_those_inside() -> None:
    priors, truth, listed, everything = scene(0)
    held = torch.zeros_like(everything.held)
    for image, item in truth.valid.nonzero().tolist():
        x1, y1, x2, y2 = truth.boxes[image, item].tolist()
        for n, (x, y) in enumerate(priors.centers[0].tolist()):
            held[image, item, n] = x1 < x < x2 and y1 < y < y2
    assert held.any() and torch.equal(everything.held, held)
    again = pairs_of(held)
    assert isinstance(again, ListedPairs)
    assert torch.equal(listed.owner, again.owner) and torch.equal(listed.place, again.place)


def test_both_forms_say_the_same() -> None:
    priors, truth, listed, everything = scene(1)
    generator = torch.Generator().manual_seed(2)
    batch, count, places = everything.held.shape
    dense = torch.randn(batch, count, places, generator=generator)
    told = torch.rand(batch, 5, places, generator=generator)
    others = torch.rand(batch, count, places, generator=generator) > 0.5
    said = torch.randn(batch, places, 5, generator=generator)

    def results(pairs: Pairs) -> list[Tensor]:
        values = pairs.of_all(dense)
        few = pairs.only(values > 2)
        many = few.or_all(others)
        written = told.clone()
        pairs.tell_classes(values, truth.labels, written)
        return [
            pairs.dense(values), pairs.total(values), pairs.most(values), pairs.place_total(values),
            pairs.place_most(values), pairs.place_owner(values > 0), written, few.dense(few.of_all(dense)),
            many.dense(many.of_all(dense)), pairs.dense(pairs.of_classes(said, truth.labels)),
            pairs.dense(pairs.of_places(priors.strides[None]) * pairs.of_objects(truth.boxes[..., 0])),
        ]  # fmt: skip

    for a, b in zip(results(listed), results(everything), strict=True):
        assert torch.equal(a, b)


def test_objects_that_are_none_change_no_bit_of_a_sum() -> None:
    generator = torch.Generator().manual_seed(3)
    values, held = torch.randn(2, 21, 50, generator=generator) * 1e3, torch.rand(2, 21, 50, generator=generator) > 0.3
    more, none = torch.cat((values, values), 1), torch.cat((held, torch.zeros_like(held)), 1)
    assert torch.equal(AllPairs(none).place_total(more), AllPairs(held).place_total(values))
    assert torch.equal(AllPairs(held).total(values), AllPairs(held.flip(2)).total(values.flip(2)))


def test_the_last_block_of_places_may_be_short() -> None:
    """A place in it is found, and nothing beyond it."""
    box = torch.tensor([[[0.0, 0.0, WIDTH, HEIGHT]]])
    centers = torch.rand(1, 45, 2, generator=torch.Generator().manual_seed(4)) * 90
    priors = Priors(torch.cat((centers - 1, centers + 1), 2), torch.ones(45), (45,))
    pairs = pairs_inside(priors.centers, box, torch.ones(1, 1, dtype=torch.bool))
    assert isinstance(pairs, ListedPairs) and pairs.place.tolist() == list(range(45))
