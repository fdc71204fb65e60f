"""Which images make which batch: every rule of the plan against plain counting."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from poise.data.sampling import EpochPlan, epoch_order, global_batches


def all_ranks(world: int, **settings: object) -> list[EpochPlan]:
    return [EpochPlan(rank=rank, world_size=world, **settings) for rank in range(world)]  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 23, 24, 25, 64])
@pytest.mark.parametrize("batch_size", [1, 4, 8])
def test_one_rank_sees_every_image_once(count: int, batch_size: int) -> None:
    plan = EpochPlan(count, batch_size, seed=1)
    batches = list(plan.batches(3))
    assert sorted(chain.from_iterable(batches)) == list(range(count))
    assert len(batches) == plan.batches_per_epoch == -(-count // batch_size)
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_order_depends_on_seed_and_epoch_alone() -> None:
    assert torch.equal(epoch_order(50, 1, 2), epoch_order(50, 1, 2))
    orders = {tuple(epoch_order(50, seed, epoch).tolist()) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16
    state = torch.get_rng_state()
    epoch_order(50, 1, 2)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("count", [12, 13, 17, 22, 23, 41])
@pytest.mark.parametrize("grouped", [False, True])
def test_ranks_together_see_what_one_rank_sees(world: int, count: int, grouped: bool) -> None:
    """Global batch g is the same set of images, dealt in parts of almost one size, none twice, none empty."""
    wide = torch.arange(count) % 3 == 0 if grouped else None
    alone = list(EpochPlan(count, 6, 5, wide=wide).batches(1))
    plans = all_ranks(world, count=count, batch_size=6, seed=5, wide=wide)
    dealt = [list(plan.batches(1)) for plan in plans]
    assert len({len(batches) for batches in dealt}) == 1
    assert {plan.batches_per_epoch for plan in plans} == {len(dealt[0])}
    for g in range(len(dealt[0])):
        parts = [batches[g] for batches in dealt]
        assert list(chain.from_iterable(parts)) == alone[g]
        assert max(map(len, parts)) - min(map(len, parts)) <= 1 and min(map(len, parts)) >= 1
    lost = sum(len(batch) for batch in alone[len(dealt[0]) :])
    assert lost == plans[0].left_out < world


def test_a_last_batch_smaller_than_the_ranks_is_left_out_and_counted() -> None:
    plans = all_ranks(4, count=19, batch_size=8, seed=0)
    assert [plan.left_out for plan in plans] == [3] * 4
    assert [len(list(plan.batches(0))) for plan in plans] == [2] * 4
    lost = [set(range(19)) - {i for plan in plans for batch in plan.batches(e) for i in batch} for e in range(3)]
    assert all(len(images) == 3 for images in lost) and lost[0] != lost[1]


def test_drop_last() -> None:
    plan = EpochPlan(19, 8, 0, drop_last=True)
    assert plan.left_out == 3 and [len(batch) for batch in plan.batches(0)] == [8, 8]


@pytest.mark.parametrize("start", range(6))
def test_start_at_any_batch(start: int) -> None:
    plan = EpochPlan(20, 4, 9)
    assert list(plan.batches(2, start)) == list(plan.batches(2))[start:]


def test_grouped_batches_have_one_orientation_and_lose_nothing() -> None:
    wide = torch.rand(103, generator=torch.Generator().manual_seed(0)) < 0.6
    order = epoch_order(103, 0, 0)
    batches = global_batches(order, 8, wide)
    assert sorted(torch.cat(batches).tolist()) == list(range(103))
    mixed = [g for g, batch in enumerate(batches) if len(set(wide[batch].tolist())) > 1]
    assert all(g >= len(batches) - 2 for g in mixed)
    assert [len(batch) for batch in batches[:-1]] == [8] * (len(batches) - 1)


def test_grouping_follows_mmdetections_sampler() -> None:
    """Two buckets, each given out when it is full; written as the loop that it is there."""
    wide = torch.rand(57, generator=torch.Generator().manual_seed(1)) < 0.4
    order = epoch_order(57, 3, 1)
    buckets: dict[bool, list[int]] = {True: [], False: []}
    expected = []
    for index in order.tolist():
        bucket = buckets[bool(wide[index])]
        bucket.append(index)
        if len(bucket) == 4:
            expected.append(list(bucket))
            bucket.clear()
    assert [batch.tolist() for batch in global_batches(order, 4, wide)][: len(expected)] == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0, "batch_size": 4}, "no images"),
        ({"count": 9, "batch_size": 1, "world_size": 2}, "at least 2"),
        ({"count": 9, "batch_size": 4, "rank": 2, "world_size": 2}, "rank 2"),
        ({"count": 3, "batch_size": 4, "drop_last": True}, "make no batch"),
        ({"count": 1, "batch_size": 4, "world_size": 2}, "make no batch"),
    ],
)
def test_impossible_plans_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EpochPlan(seed=0, **settings)
