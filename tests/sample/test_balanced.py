"""Libra R-CNN's samplers against a literal, slow reading of the specification, and against its worked examples."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from poise.sample import OHEM, InstanceBalanced, IoUBalanced, RandomSelection, SelectionRequest
from poise.structures import Assignment

DRAWS = 600


def negatives(overlap: list[float], copies: int = DRAWS) -> Assignment:
    """Return ``copies`` equal images of negatives with these IoUs."""
    quality = torch.tensor(overlap).expand(copies, -1)
    none = torch.zeros_like(quality, dtype=torch.bool)
    return Assignment(torch.zeros_like(quality, dtype=torch.int64), none, none, quality)


def positives(objects: list[int], copies: int = DRAWS) -> Assignment:
    """Return ``copies`` equal images of positives of these objects."""
    index = torch.tensor(objects).expand(copies, -1)
    yes = torch.ones_like(index, dtype=torch.bool)
    return Assignment(index, yes, ~yes, torch.full(index.shape, 0.8))


def draw(rule: Callable[[SelectionRequest], Tensor], assignment: Assignment, count: int, seed: int = 0) -> Tensor:
    candidates = ~assignment.ignored
    wanted = torch.full_like(assignment.index[:, 0], count)
    return rule(SelectionRequest(candidates, wanted, count, assignment, torch.Generator().manual_seed(seed)))


def in_bins(selected: Tensor, overlap: list[float], edges: list[float]) -> Tensor:
    """How many of each draw lie in each half-open bin, (draws,bins)."""
    level = torch.tensor(overlap)
    return torch.stack([(selected & (level >= low) & (level < high)).sum(1) for low, high in pairwise(edges)], 1)


def spread(count: int, low: float, high: float) -> list[float]:
    return [low + (high - low) * (i + 0.5) / count for i in range(count)]


def test_worked_example() -> None:
    """1000 negatives in bins of 800, 120 and 80, 333 wanted: 111, 111 and 80, then 31 of the remaining 698."""
    overlap = spread(800, 0, 0.2) + spread(120, 0.2, 0.4) + spread(80, 0.4, 0.6)
    selected = draw(IoUBalanced(floor=-1, top=0.6), negatives(overlap), 333)
    counts = in_bins(selected, overlap, [0, 0.2, 0.4, 0.6])
    assert (counts.sum(1) == 333).all()
    assert (counts[:, 2] == 80).all()
    assert (counts[:, 1] >= 111).all()
    extra = counts[:, 1] - 111
    expected = 31 * 9 / 698  # hypergeometric: 31 of 698, of which 9 in the second bin
    deviation = (expected * (1 - 9 / 698) * (698 - 31) / 697 / DRAWS) ** 0.5
    assert float(extra.float().mean()) == pytest.approx(expected, abs=4 * deviation)
    assert int(extra.max()) > 0


def test_every_negative_of_a_bin_is_as_likely_as_every_other() -> None:
    overlap = spread(90, 0.01, 0.2) + spread(30, 0.2, 0.4) + spread(30, 0.4, 0.6)
    selected = draw(IoUBalanced(top=0.6), negatives(overlap, 4000), 45).float()
    for part, probability in (
        (selected[:, :90], 15 / 90),
        (selected[:, 90:120], 15 / 30),
        (selected[:, 120:], 15 / 30),
    ):
        deviation = (probability * (1 - probability) / 4000) ** 0.5
        assert float((part.mean(0) - probability).abs().max()) < 4.5 * deviation


def test_published_bins_reach_one_so_the_last_is_empty_and_zeros_stay_out() -> None:
    """The specification's example, 448 wanted, truth among the proposals: 0 / 312 / 136; at first 237 / 75 / 136."""
    overlap = [0.0] * 1264 + spread(400, 0.001, 1 / 3) + spread(136, 0.334, 0.5)
    assignment = negatives([*overlap, 1.0])
    everything = Assignment(
        assignment.index,
        assignment.quality == 1,
        torch.zeros_like(assignment.positive),
        assignment.quality,
    )
    request = SelectionRequest(
        everything.negative, torch.full((DRAWS,), 448), 448, everything, torch.Generator().manual_seed(1)
    )
    for rule, zeros in ((IoUBalanced(), 0.0), (IoUBalanced(floor=-1), 312 * 1264 / 1664)):
        counts = in_bins(rule(request)[:, :-1], overlap, [0, 1e-6, 0.3335, 0.5])
        assert (counts.sum(1) == 448).all()
        assert (counts[:, 2] == 136).all()
        assert float(counts[:, 0].float().mean()) == pytest.approx(zeros, abs=1.5)


def test_the_articles_bins_are_even() -> None:
    overlap = spread(2000, 0, 0.05) + spread(300, 0.05, 1 / 6) + spread(300, 1 / 6, 1 / 3) + spread(200, 1 / 3, 0.5)
    assignment = negatives(overlap, 50)
    even = in_bins(draw(IoUBalanced(floor=-1, top=0.5), assignment, 384), overlap, [0, 1 / 6, 1 / 3, 0.5])
    assert (even == 128).all()
    plain = in_bins(draw(RandomSelection(), assignment, 384), overlap, [0, 0.05, 0.5])
    assert float(plain[:, 0].float().mean()) / 384 > 0.7


def literal_iou_balanced(overlap: list[float], negative: list[int], n: int, rule: IoUBalanced) -> set[int]:
    """The specification's section 2.1 word by word, with the sampler's steady-state floor."""

    def pick(pool: set[int], k: int) -> set[int]:
        return set(random.sample(sorted(pool), k)) if len(pool) > k else set(pool)

    everything = set(negative)
    if len(everything) <= n:
        return everything
    if rule.floor > 0:
        low = {j for j in everything if 0 <= overlap[j] < rule.floor}
        high = {j for j in everything if overlap[j] >= rule.floor}
    elif rule.floor == 0:
        low, high = {j for j in everything if overlap[j] == 0}, {j for j in everything if overlap[j] > 0}
    else:
        low, high = set(), everything
    n_iou = int(n * (1 - rule.floor_fraction))
    if len(high) > n_iou:
        top, floor = (max(overlap) if rule.top is None else rule.top), max(rule.floor, 0)
        width, selected = (top - floor) / rule.bins, set()
        for b in range(rule.bins):
            selected |= pick(
                {j for j in high if floor + b * width <= overlap[j] < floor + (b + 1) * width}, n_iou // rule.bins
            )
        selected |= pick(high - selected, n_iou - len(selected))
    else:
        selected = high
    selected = selected | pick(low, n - len(selected))
    return selected | pick(everything - selected, n - len(selected))


@pytest.mark.parametrize(
    "rule",
    [
        IoUBalanced(),
        IoUBalanced(floor=-1),
        IoUBalanced(floor=-1, top=0.5),
        IoUBalanced(bins=1),
        IoUBalanced(bins=5, floor=0.1, floor_fraction=0.25),
        IoUBalanced(floor=0.2, floor_fraction=0.9),
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [7, 40, 90])
def test_as_often_as_the_literal_sampler_selects(rule: IoUBalanced, count: int) -> None:
    """How often each of 120 priors is selected, over many draws."""
    random.seed(count)
    overlap = [0.0] * 40 + [random.random() * 0.15 for _ in range(50)] + [random.random() * 0.5 for _ in range(30)]
    assignment = negatives([*overlap, 0.9])  # a positive sets the upper end of the bins
    mixed = Assignment(
        assignment.index, assignment.quality == assignment.quality.amax(), assignment.ignored, assignment.quality
    )
    wanted = torch.full((DRAWS,), count)
    request = SelectionRequest(mixed.negative, wanted, count, mixed, torch.Generator().manual_seed(5))
    found = rule(request)[:, :-1].float().mean(0)
    times = torch.zeros(120)
    for _ in range(DRAWS):
        literal = literal_iou_balanced([*overlap, 0.9], list(range(120)), count, rule)
        assert len(literal) == count
        times[sorted(literal)] += 1
    expected = times / DRAWS
    assert (rule(request).sum(1) == count).all()
    assert float((found - expected).abs().max()) < 5 * (0.25 * 2 / DRAWS) ** 0.5


def literal_instance_balanced(objects: list[int], n: int) -> set[int]:
    """The specification's section 2.2, with the published duplicates."""
    priors = range(len(objects))
    if len(objects) <= n:
        return set(priors)
    per = int(round(n / len(set(objects))) + 1)
    selected: list[int] = []
    for which in sorted(set(objects)):
        members = [j for j in priors if objects[j] == which]
        selected += random.sample(members, per) if len(members) > per else members
    if len(selected) < n:
        selected += random.sample(list(priors), n - len(selected))
    elif len(selected) > n:
        selected = random.sample(selected, n)
    return set(selected)


@pytest.mark.parametrize("objects", [[0] * 60 + [1] * 30 + [2] * 3, [4] * 10 + [7] * 90, list(range(50)) * 2])
def test_instances_as_often_as_the_literal_sampler(objects: list[int]) -> None:
    random.seed(0)
    found = draw(InstanceBalanced(), positives(objects), 32).float()
    times, sizes = torch.zeros(len(objects)), []
    for _ in range(DRAWS):
        literal = literal_instance_balanced(objects, 32)
        times[sorted(literal)] += 1
        sizes.append(float(len(literal)))
    assert float((found.mean(0) - times / DRAWS).abs().max()) < 5 * (0.25 * 2 / DRAWS) ** 0.5
    deviation = (float(torch.tensor(sizes).var()) * 2 / DRAWS) ** 0.5
    assert float(found.sum(1).mean()) == pytest.approx(sum(sizes) / DRAWS, abs=5 * deviation + 1e-6)


def test_the_published_rule_returns_fewer_than_requested_the_exact_one_does_not() -> None:
    objects = [0] * 600 + [1] * 10 + [2] * 10 + [3] * 10
    published = draw(InstanceBalanced(), positives(objects, 50), 128).sum(1)
    assert int(published.max()) < 128
    exact = draw(InstanceBalanced(exact=True), positives(objects, 50), 128)
    assert (exact.sum(1) == 128).all()
    assert (exact[:, 600:].sum(1) == 30).all()  # every prior of the small objects


def test_hardest_takes_the_greatest_losses() -> None:
    loss = torch.tensor([[0.3, 5.0, 0.1, 4.0, torch.nan, 2.0]])
    assignment = negatives([0.0] * 6, 1)
    candidates = torch.tensor([[True, False, True, True, True, True]])
    request = SelectionRequest(candidates, torch.tensor([3]), 3, assignment, loss=loss)
    assert OHEM()(request).nonzero()[:, 1].tolist() == [0, 3, 5]
    with pytest.raises(ValueError, match="loss"):
        OHEM()(SelectionRequest(candidates, torch.tensor([3]), 3, assignment))


@pytest.mark.parametrize("wrong", [{"bins": 0}, {"floor_fraction": 1.5}, {"floor": 1.0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="IoUBalanced"):
        IoUBalanced(**wrong)
