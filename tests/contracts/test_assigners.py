"""The contract of assigners: every assigner of the list passes all tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from contracts.data_dependence import DataDependence
from support.scenes import CLASSES, HEIGHT, WIDTH, image_of, predictions_of, truth_of
from torch import Tensor

from poise.assign import ATSS, OTA, CenterRegion, DynamicSoftLabel, Fovea, MaxIoU, SimOTA, TaskAligned
from poise.assign.auto_assign import AutoAssign
from poise.assign.center_priors import DistanceCenterPrior, TopKCenterPrior
from poise.assign.dual_weighting import BySize, DualWeighting, LinearIoU, NormalizedIoU, overlap_power
from poise.assign.free_anchor import FreeAnchor
from poise.assign.hungarian import Hungarian
from poise.assign.paa import PAA
from poise.assign.rep_points import FirstBoxOverlap, NearestPoint
from poise.structures import (
    Assignment,
    GroundTruth,
    PairWeights,
    Predictions,
    QualityPredictions,
    QueryPredictions,
    RefinedPredictions,
    map_tensors,
)

ASSIGNERS: dict[str, Callable[..., Assignment | PairWeights]] = {
    "max_iou": MaxIoU(),
    "max_iou_strict": MaxIoU(0.7, 0.3, 0.3),
    "max_iou_plain": MaxIoU(0.4, 0.4, low_quality=False),
    "atss": ATSS(topk=5),
    "center_region": CenterRegion(1.5, (24, 60)),
    "center_region_whole": CenterRegion(0.0, (24, 60)),
    "fovea": Fovea(),
    "nearest_point": NearestPoint(),
    "first_box_overlap": FirstBoxOverlap(MaxIoU(0.4, 0.3)),
    "auto_assign": AutoAssign(),
    "free_anchor": FreeAnchor(),
    "paa": PAA(),
    "dynamic_soft_label": DynamicSoftLabel(),
    "dynamic_soft_label_rtmdet": DynamicSoftLabel(center_radius=3.0),
    "ota": OTA(),
    "sim_ota": SimOTA(),
    "sim_ota_shifted": SimOTA(shift=0.5, topk=20),
    "task_aligned": TaskAligned(),
    "task_aligned_powers": TaskAligned(4, 0.5, 2.5),
    "hungarian": Hungarian(),
    "hungarian_groups": Hungarian(groups=3, repeats=2),
    "dual_weighting": DualWeighting(),
    "dual_weighting_article": DualWeighting(
        TopKCenterPrior(9), mu_total=5.0, location=overlap_power, negative_probability=LinearIoU()
    ),
    "dual_weighting_by_size": DualWeighting(
        DistanceCenterPrior(2.0),
        BySize(2.0, 5.0),
        BySize(1.0, 6.0),
        negative_probability=NormalizedIoU(BySize(1.0, 3.0)),
        bag_bounds_negatives=True,
    ),
    "auto_assign_geometric": AutoAssign(detached=True, geometric=True),
}
KINDS: dict[str, type[Predictions]] = {  # where an assigner needs more than QualityPredictions
    "first_box_overlap": RefinedPredictions,
    "hungarian": QueryPredictions,
    "hungarian_groups": QueryPredictions,
}
EVERY_OBJECT = {"hungarian", "hungarian_groups"}  # each object gets a query of its own, also one of two equal ones
LAST_WINS = {"max_iou", "max_iou_strict", "first_box_overlap", "paa"}  # the low-quality step: later objects overwrite

pytestmark = pytest.mark.parametrize("name", ASSIGNERS)


def scene(name: str, counts: list[int], seed: int, crowd: bool = False) -> tuple[Predictions, GroundTruth]:
    kind = KINDS.get(name, QualityPredictions)
    return predictions_of(kind, len(counts), seed), truth_of(counts, seed, crowd)


def tensors(result: Assignment | PairWeights) -> list[Tensor]:
    if isinstance(result, PairWeights):
        return [result.pairs(), result.negative]
    chosen = torch.where(result.positive, result.index, -1)
    return [chosen, result.positive, result.ignored, result.quality]


def positive_of(result: Assignment | PairWeights) -> Tensor:
    """Priors (B,N) that count as positive for some object."""
    return result.pairs().any(2) if isinstance(result, PairWeights) else result.positive


def images_of(value: Any, part: slice) -> Any:
    """Some images of a batch; priors are common to all."""
    batch = len(value.boxes)
    return map_tensors(value, lambda t: t[part] if t.ndim > 1 and len(t) == batch else t)


def wider(truth: GroundTruth, more: int) -> GroundTruth:
    def pad(t: Tensor) -> Tensor:
        return t if t is truth.sizes else torch.cat((t, t.new_zeros(t.shape[0], more, *t.shape[2:])), 1)

    return map_tensors(truth, pad)


def test_padding_changes_nothing(name: str) -> None:
    predictions, truth = scene(name, [3, 9], 0)
    plain, padded = ASSIGNERS[name](predictions, truth), ASSIGNERS[name](predictions, wider(truth, 16))
    if isinstance(padded, PairWeights):
        assert not padded.pairs()[..., truth.boxes.shape[1] :].any()
        padded = PairWeights(padded.pairs()[..., : truth.boxes.shape[1]], padded.negative)
    for a, b in zip(tensors(plain), tensors(padded), strict=True):
        assert torch.equal(a, b)


def test_permuting_objects_permutes_the_result(name: str) -> None:
    predictions, truth = scene(name, [7], 1)
    order = torch.randperm(truth.boxes.shape[1], generator=torch.Generator().manual_seed(2))
    shuffled = map_tensors(truth, lambda t: t if t is truth.sizes else t[:, order])
    plain, mixed = ASSIGNERS[name](predictions, truth), ASSIGNERS[name](predictions, shuffled)
    if isinstance(plain, PairWeights) and isinstance(mixed, PairWeights):
        torch.testing.assert_close(plain.pairs()[..., order], mixed.pairs())
        return
    assert isinstance(plain, Assignment) and isinstance(mixed, Assignment)
    assert torch.equal(plain.positive, mixed.positive)
    assert torch.equal(plain.index[plain.positive], order[mixed.index[mixed.positive]])


def test_batch_equals_image_by_image(name: str) -> None:
    predictions, truth = scene(name, [0, 1, 12], 3, crowd=True)
    together = ASSIGNERS[name](predictions, truth)
    for i in range(3):
        alone = ASSIGNERS[name](image_of(predictions, i), image_of(truth, i))
        for a, b in zip(tensors(together), tensors(alone), strict=True):
            assert torch.equal(a[i : i + 1], b)


def test_empty_truth_gives_no_positive(name: str) -> None:
    result = ASSIGNERS[name](*scene(name, [0, 0], 4))
    assert not result.positive.any()
    assert all(t.isfinite().all() for t in tensors(result))


def test_crowd_is_never_positive(name: str) -> None:
    predictions, truth = scene(name, [10, 10], 5, crowd=True)
    result = ASSIGNERS[name](predictions, truth)
    assert truth.crowd.any()
    if isinstance(result, PairWeights):
        assert not result.pairs().where(truth.crowd[:, None], 0).any()
    else:
        assert not (truth.crowd.gather(1, result.index) & result.positive).any()


def test_index_is_always_safe_to_gather(name: str) -> None:
    predictions, truth = scene(name, [0, 20], 6)
    result = ASSIGNERS[name](predictions, truth)
    hard = result.hard() if isinstance(result, PairWeights) else result
    assert 0 <= int(hard.index.min()) and int(hard.index.max()) < truth.boxes.shape[1]
    assert not (hard.positive & hard.ignored).any()
    assert 0 <= float(hard.quality.min()) and float(hard.quality.max()) <= 1


def test_no_operation_depends_on_the_data(name: str) -> None:
    predictions, truth = scene(name, [2, 9], 7)
    with DataDependence() as counted:
        ASSIGNERS[name](predictions, truth)
    assert not counted.found, dict(counted.found)


def test_one_graph(name: str) -> None:
    predictions, truth = scene(name, [2, 9], 8)
    torch._dynamo.reset()
    compiled = torch.compile(ASSIGNERS[name].__call__, backend="eager", fullgraph=True)
    for a, b in zip(tensors(compiled(predictions, truth)), tensors(ASSIGNERS[name](predictions, truth)), strict=True):
        assert torch.equal(a, b)


def test_float32_within_autocast(name: str) -> None:
    predictions, truth = scene(name, [2, 9], 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = ASSIGNERS[name](predictions, truth)
    for a, b in zip(tensors(mixed), tensors(ASSIGNERS[name](predictions, truth)), strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)


def test_no_gradient(name: str) -> None:
    predictions, truth = scene(name, [2, 9], 10)
    with_gradient = map_tensors(predictions, lambda t: t.requires_grad_())
    assert not any(t.requires_grad for t in tensors(ASSIGNERS[name](with_gradient, truth)))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_prior_that_is_not_finite_is_not_matched_and_changes_nothing_else(name: str, value: float) -> None:
    """One number of one matched prior in the first image is spoiled; the second image does not change."""
    predictions, truth = scene(name, [4, 4], 11)
    before = ASSIGNERS[name](predictions, truth)
    prior = int(positive_of(before)[0].int().argmax())
    assert positive_of(before)[0, prior]
    parts = [part for part, value in vars(predictions).items() if isinstance(value, Tensor)]
    assert {"logits", "boxes"} < set(parts)
    for part in parts:
        spoiled = getattr(predictions, part).clone()
        spoiled[0, prior].view(-1)[-1] = value
        result = ASSIGNERS[name](replace(predictions, **{part: spoiled}), truth)
        assert not positive_of(result)[0, prior], part
        assert all(t.isfinite().all() for t in tensors(result)), part
        for a, b in zip(tensors(before), tensors(result), strict=True):
            assert torch.equal(a[1], b[1]), part


def test_nothing_is_matched_without_finite_predictions(name: str) -> None:
    predictions, truth = scene(name, [4, 4], 14)
    predictions.logits[:] = torch.nan
    result = ASSIGNERS[name](predictions, truth)
    assert not positive_of(result).any()
    hard = result.hard() if isinstance(result, PairWeights) else result
    assert 0 <= int(hard.index.min()) and int(hard.index.max()) < truth.boxes.shape[1]


def test_half_precision_predictions_are_matched_in_float32(name: str) -> None:
    predictions, truth = scene(name, [6, 3], 15)
    priors = predictions.priors
    half = replace(map_tensors(predictions, lambda t: t.half()), priors=priors)
    same = replace(map_tensors(half, lambda t: t.float()), priors=priors)
    for a, b in zip(tensors(ASSIGNERS[name](half, truth)), tensors(ASSIGNERS[name](same, truth)), strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)


def test_batch_equals_chunks_of_images(name: str) -> None:
    predictions, truth = scene(name, [5, 0, 30, 2, 1], 16)
    together = ASSIGNERS[name](predictions, truth)
    for part in (slice(0, 2), slice(2, 5)):
        chunk = ASSIGNERS[name](images_of(predictions, part), images_of(truth, part))
        for a, b in zip(tensors(together), tensors(chunk), strict=True):
            assert torch.equal(a[part], b)


def test_of_equal_objects_the_first_is_taken(name: str) -> None:
    """The documented rule of ties, and its documented exception."""
    predictions, truth = scene(name, [6], 17)
    twice = map_tensors(truth, lambda t: t if t is truth.sizes else torch.cat((t[:, :6], t[:, :6]), 1))
    result = ASSIGNERS[name](predictions, twice)
    if isinstance(result, PairWeights):
        assert torch.equal(result.positive[..., :6], result.positive[..., 6:])
        result = result.hard()
    chosen = result.index[result.positive]
    assert len(chosen) > 0
    assert int(chosen.max()) < 6 or name in LAST_WINS | EVERY_OBJECT


def test_degenerate_and_duplicate_objects_give_finite_results(name: str) -> None:
    box = [10.0, 10.0, 30.0, 40.0]
    boxes = torch.tensor([box, box, [20.0, 20.0, 20.0, 20.0], [0.0, 0.0, WIDTH, HEIGHT], [-50.0, -50.0, -40.0, -40.0]])
    truth = GroundTruth.collate([{"boxes": boxes, "labels": torch.arange(5) % CLASSES}], [(HEIGHT, WIDTH)])
    predictions, _ = scene(name, [1], 12)
    assert all(t.isfinite().all() for t in tensors(ASSIGNERS[name](predictions, truth)))


def test_chunks_of_objects_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, truth = scene(name, [40, 25], 13)
    whole = ASSIGNERS[name](predictions, truth)
    monkeypatch.setattr("poise.pairwise.build.PLANE_ELEMENTS", 2 * predictions.boxes.shape[1] * 7)
    for a, b in zip(tensors(whole), tensors(ASSIGNERS[name](predictions, truth)), strict=True):
        assert torch.equal(a, b)


def test_dense_pairs_equal_sparse_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU lists pairs, an accelerator computes all of them."""
    predictions, truth = scene(name, [40, 0, 7], 18, crowd=True)
    sparse = ASSIGNERS[name](predictions, truth)
    monkeypatch.setattr("poise.pairwise.pairs.allows_dynamic_shapes", lambda device: False)
    for a, b in zip(tensors(sparse), tensors(ASSIGNERS[name](predictions, truth)), strict=True):
        assert torch.equal(a, b)
