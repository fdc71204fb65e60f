"""Contrastive denoising against the original's recipe, written out in loops."""

from __future__ import annotations

import pytest
import torch
from support.scenes import CLASSES, HEIGHT, WIDTH, truth_of

from poise.boxes import cxcywh_to_xyxy, normalize_boxes
from poise.nn.transformer.denoising import ContrastiveDenoising
from poise.nn.transformer.layers import inverse_sigmoid
from poise.nn.transformer.queries import Queries, SupervisedQueries, concatenate_with_mask
from poise.structures import GroundTruth

CHANNELS = 4


def noisy_of(
    truth: GroundTruth, queries: int = 20, label_noise: float = 0.0, box_noise: float = 0.0
) -> SupervisedQueries:
    torch.manual_seed(0)
    return ContrastiveDenoising(CLASSES, CHANNELS, queries, label_noise=label_noise, box_noise=box_noise)(truth)


def mask_among(found: SupervisedQueries) -> torch.Tensor:
    """The attention mask among these queries; five matched queries stand behind them."""
    others = Queries(torch.zeros(2, 5, CHANNELS), torch.zeros(2, 5, 4))
    mask = concatenate_with_mask(others, [found])[1]
    assert mask is not None
    assert bool(mask[-5:, :-5].all()) and not mask[:, -5:].any()
    return mask[:-5, :-5]


@pytest.mark.parametrize("counts", [[3, 7], [1, 0], [4, 4], [20, 2], [30, 1]])
def test_layout_equals_the_original(counts: list[int]) -> None:
    truth, budget = truth_of(counts, 1), 20
    found = noisy_of(truth, budget)
    max_objects = max(counts)
    groups = max(1, budget // max_objects)
    group = torch.full((found.groups.shape[1],), -1)
    normalized = normalize_boxes(truth.boxes, truth.sizes)
    for k in range(groups):
        for half in range(2):
            for i in range(max_objects):
                slot = 2 * max_objects * k + max_objects * half + i
                group[slot] = k
                for b, count in enumerate(counts):
                    assert bool(found.assignment.positive[b, slot]) == (half == 0 and i < count)
                    assert not found.assignment.ignored[b, slot]
                    references = found.queries.references[b, slot]
                    if i < count:
                        assert int(found.assignment.index[b, slot]) == i
                        torch.testing.assert_close(references, inverse_sigmoid(normalized[b, i], 1e-3).sigmoid())
                        assert found.queries.content[b, slot].any()
                    else:
                        assert references.tolist() == [0.5] * 4 and not found.queries.content[b, slot].any()
    mask, used = mask_among(found), group >= 0
    assert int(used.sum()) == 2 * max_objects * groups
    assert bool(found.assignment.ignored[:, ~used].all())
    same = group[used][:, None] == group[used]
    assert torch.equal(mask[used][:, used], ~same)
    assert bool(mask[used][:, ~used].all())


def test_no_objects_at_all() -> None:
    found = noisy_of(truth_of([0, 0], 2))
    assert not found.assignment.positive.any() and bool(found.assignment.ignored.all())
    assert not mask_among(found).all(1).any(), "a query that may attend to nothing would become NaN"
    assert not found.queries.content.any() and found.queries.content.requires_grad


def test_crowd_gives_no_queries() -> None:
    truth = truth_of([9, 9], 3, crowd=True)
    found = noisy_of(truth)
    chosen = truth.valid.gather(1, found.assignment.index)
    assert bool(chosen[found.assignment.positive].all())
    assert int(found.assignment.positive[0].sum()) % int(truth.valid[0].sum()) == 0


def test_noise_keeps_its_bounds() -> None:
    truth = truth_of([5, 8], 4)
    found = noisy_of(truth, 200, box_noise=0.4)
    clean = cxcywh_to_xyxy(
        normalize_boxes(truth.boxes, truth.sizes).gather(1, found.assignment.index[..., None].expand(-1, -1, 4))
    )
    shift = (cxcywh_to_xyxy(found.queries.references) - clean).abs()
    half = (clean[..., 2:] - clean[..., :2]).repeat(1, 1, 2) / 2
    positive = found.assignment.positive
    assert bool((shift <= 0.4 * half + 2e-3)[positive].all())
    negative = found.queries.content.any(2) & ~positive
    far, edge = shift >= 0.4 * half - 2e-3, (cxcywh_to_xyxy(found.queries.references) - 0.5).abs() > 0.497
    assert bool((far | edge)[negative].all())


def test_label_noise_replaces_half_of_its_fraction() -> None:
    torch.manual_seed(1)
    truth = truth_of([8, 8], 5)
    denoising = ContrastiveDenoising(50, 1, 4000, label_noise=0.5)
    with torch.no_grad():
        denoising.embedding.weight.copy_(torch.arange(1, 51)[:, None])
    found = denoising(truth)
    labels = truth.labels.gather(1, found.assignment.index) + 1
    filled = found.queries.content[..., 0] > 0
    changed = (found.queries.content[..., 0] != labels)[filled].float().mean()
    assert float(changed) == pytest.approx(0.25 * 49 / 50, abs=0.02)


def test_the_generator_determines_the_noise() -> None:
    truth = truth_of([3, 5], 6)
    draws = []
    for seed in (0, 0, 1):
        generator = torch.Generator().manual_seed(seed)
        denoising = ContrastiveDenoising(CLASSES, CHANNELS, generator=generator)
        draws.append(denoising(truth).queries.references)
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert HEIGHT < WIDTH  # coordinates of the two axes cannot be mistaken for one another above
