"""Dense and sparse pairs against each other, and against loops and torchvision."""

from __future__ import annotations

import pytest
import torch
from support.scenes import HEIGHT, POINTS, WIDTH, maps_of, truth_of
from torch import Tensor
from torchvision.ops import box_iou

from poise.pairwise import Objects, Pairs, best_iou, from_index, from_mask, inside, overlapping
from poise.pairwise.stored_pairs import DensePairs, SparsePairs
from poise.structures import GroundTruth, Priors

BATCH = 3


def objects_of(truth: GroundTruth) -> Objects:
    return Objects(truth.boxes, truth.labels, truth.valid, slice(0, truth.labels.shape[1]))


def boxes_of(priors: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(BATCH, priors, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT])
    return torch.cat((corner, corner + torch.rand(BATCH, priors, 2, generator=generator) * 30), 2)


def inside_in_both(seed: int) -> tuple[Priors, GroundTruth, SparsePairs, DensePairs]:
    priors, truth = POINTS(maps_of(BATCH)), truth_of([5, 0, 12], seed, crowd=True)
    sparse = inside(priors, objects_of(truth))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("poise.pairwise.stored_pairs.allows_dynamic_shapes", lambda device: False)
        dense = inside(priors, objects_of(truth))
    assert isinstance(sparse, SparsePairs) and isinstance(dense, DensePairs)
    return priors, truth, sparse, dense


def overlapping_in_both(boxes: Tensor, truth: GroundTruth, usable: Tensor | None = None) -> list[tuple[Pairs, Tensor]]:
    found = [overlapping(boxes, objects_of(truth), usable)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("poise.pairwise.stored_pairs.allows_dynamic_shapes", lambda device: False)
        found.append(overlapping(boxes, objects_of(truth), usable))
    assert isinstance(found[0][0], SparsePairs) and isinstance(found[1][0], DensePairs)
    return found


def results(pairs: Pairs, values: Tensor, truth: GroundTruth, target: Tensor, logits: Tensor) -> list[Tensor]:
    """Everything that the interface computes from values of all pairs."""
    values = pairs.from_dense(values)
    last, lowest = target.clone(), target.clone()
    pairs.scatter_by_class(values, truth.labels, last, reduce="last")
    pairs.scatter_by_class(values, truth.labels, lowest, reduce="amin")
    few = pairs.where(values > 2)
    many = few.or_if_empty(torch.ones(len(truth.boxes), truth.labels.shape[1], target.shape[2], dtype=torch.bool))
    return [
        pairs.to_dense(values), pairs.to_dense(values, fill=3.0), pairs.sum_by_object(values),
        pairs.max_by_object(values), pairs.to_dense(pairs.normalize_by_object(values)), pairs.sum_by_prior(values),
        pairs.to_dense(pairs.normalize_by_object(values, high=1.5)),
        pairs.max_by_prior(values), *pairs.argmax_by_prior(values), *pairs.argmax_by_prior(values.round()),
        *pairs.topk_by_object(values.abs(), 7), *pairs.topk_by_object(values.abs().round(), 7), last, lowest,
        few.to_dense(few.from_dense(logits[..., :1].mT.expand(-1, truth.labels.shape[1], -1).contiguous())),
        many.sum_by_object(many.from_priors(torch.ones_like(target[:, 0]))),
        pairs.to_dense(pairs.from_classes(logits, truth.labels)),
        pairs.to_dense(pairs.from_priors(logits[:1, :, 0]) * pairs.from_objects(truth.boxes[..., 0])),
    ]  # fmt: skip


def test_inside_as_written_out() -> None:
    priors, truth, sparse, dense = inside_in_both(0)
    expected = torch.zeros_like(dense.mask)
    for image, item in truth.valid.nonzero().tolist():
        x1, y1, x2, y2 = truth.boxes[image, item].tolist()
        for n, (x, y) in enumerate(priors.centers[0].tolist()):
            expected[image, item, n] = x1 < x < x2 and y1 < y < y2
    assert expected.any() and torch.equal(dense.mask, expected)
    listed = from_mask(expected)
    assert isinstance(listed, SparsePairs)
    assert torch.equal(sparse.object, listed.object) and torch.equal(sparse.prior, listed.prior)


@pytest.mark.parametrize("seed", range(3))
def test_dense_equals_sparse(seed: int) -> None:
    _, truth, sparse, dense = inside_in_both(seed)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(dense.mask.shape, generator=generator) * 2
    target = torch.rand(BATCH, 5, values.shape[2], generator=generator)
    logits = torch.randn(BATCH, values.shape[2], 5, generator=generator)
    found = [results(pairs, values, truth, target, logits) for pairs in (sparse, dense)]
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("count", [1, 3, 7, 40])
def test_topk_by_object_as_a_stable_sort_of_all_priors(count: int) -> None:
    """Ties go to the lowest index, and priors without a pair count as 0."""
    _, _, sparse, dense = inside_in_both(4)
    values = torch.randint(0, 4, dense.mask.shape, generator=torch.Generator().manual_seed(5)).float()
    value, prior = dense.to_dense(values).sort(dim=2, descending=True, stable=True)
    for pairs in (sparse, dense):
        found = pairs.topk_by_object(pairs.from_dense(values), count)
        assert torch.equal(found[0], value[..., :count]) and torch.equal(found[1], prior[..., :count])


def test_argmax_by_prior_takes_the_first_object() -> None:
    _, _, sparse, dense = inside_in_both(6)
    values = torch.randint(0, 3, dense.mask.shape, generator=torch.Generator().manual_seed(7)).float()
    expected = torch.where(dense.mask, values, -torch.inf).max(1)
    for pairs in (sparse, dense):
        maximum, index = pairs.argmax_by_prior(pairs.from_dense(values))
        assert torch.equal(maximum, expected.values) and torch.equal(index, expected.indices)


@pytest.mark.parametrize("priors", [1, 31, 45, 320])
def test_overlaps_are_those_of_torchvision(priors: int) -> None:
    boxes, truth = boxes_of(priors, 0), truth_of([5, 0, 12], 0, crowd=True)
    for pairs, overlap in overlapping_in_both(boxes, truth):
        iou = pairs.to_dense(overlap)
        for image in range(BATCH):
            expected = box_iou(truth.boxes[image], boxes[image]) * truth.valid[image, :, None]
            torch.testing.assert_close(iou[image], expected)


@pytest.mark.parametrize("priors", [1, 31, 45, 320])
def test_dense_overlaps_equal_sparse_ones(priors: int) -> None:
    truth, generator = truth_of([5, 0, 12], 1, crowd=True), torch.Generator().manual_seed(2)
    usable = torch.rand(BATCH, priors, generator=generator) > 0.2
    target = torch.rand(BATCH, 5, priors, generator=generator)
    logits = torch.randn(BATCH, priors, 5, generator=generator)
    (sparse, listed), (dense, iou) = overlapping_in_both(boxes_of(priors, 1), truth, usable)
    assert torch.equal(sparse.to_dense(listed), dense.to_dense(iou))
    found = [results(pairs, dense.to_dense(iou) * 4, truth, target, logits) for pairs in (sparse, dense)]
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_priors_that_are_not_usable_or_not_finite_overlap_nothing() -> None:
    boxes, truth = boxes_of(45, 3), truth_of([5, 1, 12], 3)
    usable = torch.arange(45).expand(BATCH, -1) % 3 > 0
    boxes[:, 1::3, 2] = torch.nan
    for pairs, overlap in overlapping_in_both(boxes, truth, usable):
        highest = pairs.max_by_prior(overlap).clamp(min=0)
        assert not highest[:, ::3].any() and not highest[:, 1::3].any() and highest[:, 2::3].any()


def test_best_iou_over_chunks_of_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, truth = boxes_of(100, 4), truth_of([40, 0, 7], 4)
    monkeypatch.setattr("poise.pairwise.chunks.PLANE_ELEMENTS", BATCH * 100 * 4 * 7)
    parts = zip(boxes, truth.boxes, truth.valid, strict=True)
    expected = torch.stack([(box_iou(b, t) * valid).amax(1) for b, t, valid in parts])
    torch.testing.assert_close(best_iou(boxes, truth), expected)


def test_pairs_of_listed_candidates() -> None:
    index = torch.tensor([[[4, 0], [3, 3]], [[1, 2], [0, 4]]])
    values, objects = torch.arange(10.0).view(2, 5), torch.tensor([[10.0, 20.0], [30.0, 40.0]])
    pairs = from_index(index, 5)
    assert pairs.from_priors(values).view(2, 2, 2).tolist() == [[[4, 0], [3, 3]], [[6, 7], [5, 9]]]
    assert pairs.from_objects(objects).tolist() == [10, 10, 20, 20, 30, 30, 40, 40]


def test_invalid_objects_change_no_bit_of_a_sum() -> None:
    generator = torch.Generator().manual_seed(3)
    values, mask = torch.randn(2, 21, 50, generator=generator) * 1e3, torch.rand(2, 21, 50, generator=generator) > 0.3
    more, none = torch.cat((values, values), 1), torch.cat((mask, torch.zeros_like(mask)), 1)
    assert torch.equal(DensePairs(none).sum_by_prior(more), DensePairs(mask).sum_by_prior(values))
    assert torch.equal(DensePairs(mask).sum_by_object(values), DensePairs(mask.flip(2)).sum_by_object(values.flip(2)))
