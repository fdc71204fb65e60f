"""The contract of assigners."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal
from unittest.mock import patch

import torch
from torch import Tensor

from poise.protocols import Assigner
from poise.structures import (
    Assignment,
    GroundTruth,
    PairWeights,
    Predictions,
    QualityPredictions,
    map_tensors,
)
from poise.testing.checks import run_checks
from poise.testing.data_dependence import DataDependence
from poise.testing.scenes import CLASSES, HEIGHT, WIDTH, Scene, image_of, predictions_of, truth_of

Ties = Literal["first", "last", "own query"]


@dataclass(frozen=True)
class Case:
    """An assigner, the predictions that it reads, and its rule for ties of objects."""

    assigner: Assigner
    predictions: type[Predictions] | Callable[[int, int], Predictions] = QualityPredictions
    ties: Ties = "first"

    def scene(self, counts: list[int], seed: int, crowd: bool = False) -> tuple[Predictions, GroundTruth]:
        """Return predictions and ground truth of images with so many objects each."""
        make = self.predictions
        predictions = predictions_of(make, len(counts), seed) if isinstance(make, type) else make(len(counts), seed)
        return predictions, truth_of(counts, seed, crowd)


def check_assigner(
    assigner: Assigner,
    predictions: type[Predictions] | Callable[[int, int], Predictions] = QualityPredictions,
    *,
    ties: Ties = "first",
) -> None:
    """Check that an assigner keeps the contract of assigners.

    Args:
        assigner: a value such as ``ATSS(topk=9)``.
        predictions: the kind of predictions that it reads, or a function of the numbers of images and of the seed that
            returns them, for images of ``poise.testing.scenes.HEIGHT`` x ``WIDTH`` pixels and ``CLASSES`` classes.
        ties: which of two equal objects a prior is assigned to: ``first`` or ``last``; ``own query``: each has its own.

    Raises:
        BrokenContract: a promise is broken; the message says which.
    """
    run_checks(f"assigner {type(assigner).__name__}", CHECKS, Case(assigner, predictions, ties))


def tensors(result: Assignment | PairWeights) -> list[Tensor]:
    """Return the tensors that decide the losses."""
    pairs, hard = result.pairs(), result.hard()
    if pairs is not None:
        return [pairs, result.negative]
    return [torch.where(hard.positive, hard.index, -1), hard.positive, hard.ignored, hard.quality]


def positive_of(result: Assignment | PairWeights) -> Tensor:
    """Return the priors (B,N) that are positive for some object."""
    pairs = result.pairs()
    return result.positive if pairs is None else pairs.any(2)


def images_of(value: Scene, part: slice) -> Scene:
    """Return some images of a batch; priors are common to all."""
    batch = len(value.boxes)
    return map_tensors(value, lambda t: t[part] if t.ndim > 1 and len(t) == batch else t)


def wider(truth: GroundTruth, more: int) -> GroundTruth:
    """Return the ground truth with ``more`` padded objects."""

    def pad(t: Tensor) -> Tensor:
        return t if t is truth.sizes else torch.cat((t, t.new_zeros(t.shape[0], more, *t.shape[2:])), 1)

    return map_tensors(truth, pad)


def padding_changes_nothing(case: Case) -> None:
    """More padding of the objects changes nothing."""
    predictions, truth = case.scene([3, 9], 0)
    plain, padded = case.assigner(predictions, truth), case.assigner(predictions, wider(truth, 16))
    if (pairs := padded.pairs()) is not None:
        assert not pairs[..., truth.boxes.shape[1] :].any()
        padded = PairWeights(pairs[..., : truth.boxes.shape[1]], padded.negative)
    for a, b in zip(tensors(plain), tensors(padded), strict=True):
        assert torch.equal(a, b)


def permuting_objects_permutes_the_result(case: Case) -> None:
    """Another order of the objects permutes the result."""
    predictions, truth = case.scene([7], 1)
    order = torch.randperm(truth.boxes.shape[1], generator=torch.Generator().manual_seed(2))
    shuffled = map_tensors(truth, lambda t: t if t is truth.sizes else t[:, order])
    plain, mixed = case.assigner(predictions, truth), case.assigner(predictions, shuffled)
    if (pairs := plain.pairs()) is not None:
        torch.testing.assert_close(pairs[..., order], mixed.pairs())
        return
    one, other = plain.hard(), mixed.hard()
    assert torch.equal(one.positive, other.positive)
    assert torch.equal(one.index[one.positive], order[other.index[other.positive]])


def batch_equals_image_by_image(case: Case) -> None:
    """The result of an image does not depend on the other images of the batch."""
    predictions, truth = case.scene([0, 1, 12], 3, crowd=True)
    together = case.assigner(predictions, truth)
    for i in range(3):
        alone = case.assigner(image_of(predictions, i), image_of(truth, i))
        for a, b in zip(tensors(together), tensors(alone), strict=True):
            assert torch.equal(a[i : i + 1], b)


def empty_truth_gives_no_positive(case: Case) -> None:
    """An image without objects has no positive, and finite results."""
    result = case.assigner(*case.scene([0, 0], 4))
    assert not result.positive.any()
    assert all(t.isfinite().all() for t in tensors(result))


def crowd_is_never_positive(case: Case) -> None:
    """No prior is assigned to a crowd region."""
    predictions, truth = case.scene([10, 10], 5, crowd=True)
    result = case.assigner(predictions, truth)
    assert truth.crowd.any()
    pairs, hard = result.pairs(), result.hard()
    assert pairs is None or not pairs.where(truth.crowd[:, None], 0).any()
    assert not (truth.crowd.gather(1, hard.index) & hard.positive).any()


def index_is_always_safe_to_gather(case: Case) -> None:
    """Indices point to objects, no prior is both positive and ignored, and quality lies in [0,1]."""
    predictions, truth = case.scene([0, 20], 6)
    result = case.assigner(predictions, truth)
    hard = result.hard()
    assert 0 <= int(hard.index.min()) and int(hard.index.max()) < truth.boxes.shape[1]
    assert not (hard.positive & hard.ignored).any()
    assert 0 <= float(hard.quality.min()) and float(hard.quality.max()) <= 1


def no_operation_depends_on_the_data(case: Case) -> None:
    """No operation waits for values: no item(), nonzero() or boolean indexing where all pairs are stored."""
    predictions, truth = case.scene([2, 9], 7)
    with DataDependence() as counted:
        case.assigner(predictions, truth)
    assert not counted.found, dict(counted.found)


def one_graph(case: Case) -> None:
    """torch.compile traces the call as one graph, with the same result."""
    predictions, truth = case.scene([2, 9], 8)
    torch._dynamo.reset()
    compiled = torch.compile(case.assigner, backend="eager", fullgraph=True)
    for a, b in zip(tensors(compiled(predictions, truth)), tensors(case.assigner(predictions, truth)), strict=True):
        assert torch.equal(a, b)


def float32_within_autocast(case: Case) -> None:
    """The result is computed in float32 within autocast."""
    predictions, truth = case.scene([2, 9], 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = case.assigner(predictions, truth)
    for a, b in zip(tensors(mixed), tensors(case.assigner(predictions, truth)), strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)


def no_gradient(case: Case) -> None:
    """The result has no gradient."""
    predictions, truth = case.scene([2, 9], 10)
    with_gradient = map_tensors(predictions, lambda t: t.requires_grad_())
    assert not any(t.requires_grad for t in tensors(case.assigner(with_gradient, truth)))


def a_prior_that_is_not_finite_is_not_matched_and_changes_nothing_else(case: Case) -> None:
    """A prior with a prediction that is not finite is not positive, and no other image changes."""
    predictions, truth = case.scene([4, 4], 11)
    before = case.assigner(predictions, truth)
    prior = int(positive_of(before)[0].int().argmax())
    assert positive_of(before)[0, prior]
    parts = [part for part, value in vars(predictions).items() if isinstance(value, Tensor)]
    assert {"logits", "boxes"} < set(parts)
    for part, value in itertools.product(parts, (torch.nan, torch.inf, -torch.inf)):
        spoiled = getattr(predictions, part).clone()
        spoiled[0, prior].view(-1)[-1] = value
        result = case.assigner(replace(predictions, **{part: spoiled}), truth)
        assert not positive_of(result)[0, prior], f"{value} in {part}"
        assert all(t.isfinite().all() for t in tensors(result)), f"{value} in {part}"
        for a, b in zip(tensors(before), tensors(result), strict=True):
            assert torch.equal(a[1], b[1]), f"{value} in {part}"


def nothing_is_matched_without_finite_predictions(case: Case) -> None:
    """Without any finite prediction nothing is positive."""
    predictions, truth = case.scene([4, 4], 14)
    predictions.logits[:] = torch.nan
    result = case.assigner(predictions, truth)
    assert not positive_of(result).any()
    hard = result.hard()
    assert 0 <= int(hard.index.min()) and int(hard.index.max()) < truth.boxes.shape[1]


def half_precision_predictions_are_matched_in_float32(case: Case) -> None:
    """Predictions in half precision are assigned in float32."""
    predictions, truth = case.scene([6, 3], 15)
    priors = predictions.priors
    half = replace(map_tensors(predictions, lambda t: t.half()), priors=priors)
    same = replace(map_tensors(half, lambda t: t.float()), priors=priors)
    for a, b in zip(tensors(case.assigner(half, truth)), tensors(case.assigner(same, truth)), strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)


def batch_equals_chunks_of_images(case: Case) -> None:
    """A batch gives the same as its parts."""
    predictions, truth = case.scene([5, 0, 30, 2, 1], 16)
    together = case.assigner(predictions, truth)
    for part in (slice(0, 2), slice(2, 5)):
        chunk = case.assigner(images_of(predictions, part), images_of(truth, part))
        for a, b in zip(tensors(together), tensors(chunk), strict=True):
            assert torch.equal(a[part], b)


def of_equal_objects_the_first_is_taken(case: Case) -> None:
    """Of two equal objects the first is taken, unless ``ties`` says otherwise."""
    predictions, truth = case.scene([6], 17)
    twice = map_tensors(truth, lambda t: t if t is truth.sizes else torch.cat((t[:, :6], t[:, :6]), 1))
    result = case.assigner(predictions, twice)
    assert result.pairs() is None or torch.equal(result.positive[..., :6], result.positive[..., 6:])
    hard = result.hard()
    chosen = hard.index[hard.positive]
    assert len(chosen) > 0
    assert int(chosen.max()) < 6 or case.ties != "first"


def degenerate_and_duplicate_objects_give_finite_results(case: Case) -> None:
    """Objects without area, outside the image or equal give finite results."""
    box = [10.0, 10.0, 30.0, 40.0]
    boxes = torch.tensor([box, box, [20.0, 20.0, 20.0, 20.0], [0.0, 0.0, WIDTH, HEIGHT], [-50.0, -50.0, -40.0, -40.0]])
    truth = GroundTruth.collate([{"boxes": boxes, "labels": torch.arange(5) % CLASSES}], [(HEIGHT, WIDTH)])
    predictions, _ = case.scene([1], 12)
    assert all(t.isfinite().all() for t in tensors(case.assigner(predictions, truth)))


def chunks_of_objects_change_nothing(case: Case) -> None:
    """The result does not depend on the chunks in which many objects are processed."""
    predictions, truth = case.scene([40, 25], 13)
    whole = case.assigner(predictions, truth)
    with patch("poise.pairwise.chunks.PLANE_ELEMENTS", 2 * predictions.boxes.shape[1] * 7):
        parts = case.assigner(predictions, truth)
    for a, b in zip(tensors(whole), tensors(parts), strict=True):
        assert torch.equal(a, b)


def dense_pairs_equal_sparse_ones(case: Case) -> None:
    """Lists of pairs (CPU) and all pairs with a mask (accelerators) give the same."""
    predictions, truth = case.scene([40, 0, 7], 18, crowd=True)
    sparse = case.assigner(predictions, truth)
    with patch("poise.pairwise.stored_pairs.allows_dynamic_shapes", lambda device: False):
        dense = case.assigner(predictions, truth)
    for a, b in zip(tensors(sparse), tensors(dense), strict=True):
        assert torch.equal(a, b)


CHECKS = (
    index_is_always_safe_to_gather,
    padding_changes_nothing,
    permuting_objects_permutes_the_result,
    batch_equals_image_by_image,
    empty_truth_gives_no_positive,
    crowd_is_never_positive,
    no_operation_depends_on_the_data,
    float32_within_autocast,
    no_gradient,
    a_prior_that_is_not_finite_is_not_matched_and_changes_nothing_else,
    nothing_is_matched_without_finite_predictions,
    half_precision_predictions_are_matched_in_float32,
    batch_equals_chunks_of_images,
    of_equal_objects_the_first_is_taken,
    degenerate_and_duplicate_objects_give_finite_results,
    chunks_of_objects_change_nothing,
    dense_pairs_equal_sparse_ones,
    one_graph,  # last: it takes longest
)
