"""Overlaps in their two forms against each other and against torchvision, and places that are gathered."""

from __future__ import annotations

import pytest
import torch
from support.scenes import HEIGHT, POINTS, WIDTH, maps_of, truth_of
from torch import Tensor
from torchvision.ops import box_iou

from poise.pairwise import listing
from poise.pairwise.listing import Places, finite_of
from poise.pairwise.overlaps import AllOverlaps, BlockOverlaps, Overlaps, best_overlap, overlaps_with
from poise.pairwise.planes import largest
from poise.structures import GroundTruth, Predictions

BATCH = 3


def boxes_of(places: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(BATCH, places, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT])
    return torch.cat((corner, corner + torch.rand(BATCH, places, 2, generator=generator) * 30), 2)


def forms(boxes: Tensor, truth: GroundTruth, usable: Tensor | None = None) -> tuple[BlockOverlaps, AllOverlaps]:
    listed = overlaps_with(boxes, usable)(truth.boxes, truth.valid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "allows_dynamic_shapes", lambda device: False)
        everything = overlaps_with(boxes, usable)(truth.boxes, truth.valid)
    assert isinstance(listed, BlockOverlaps) and isinstance(everything, AllOverlaps)
    return listed, everything


@pytest.mark.parametrize("places", [1, 31, 45, 320])
def test_both_forms_say_what_torchvision_says(places: int) -> None:
    boxes, truth = boxes_of(places, 0), truth_of([5, 0, 12], 0, crowd=True)
    for found in forms(boxes, truth):
        iou = found.dense(found.iou)
        for image in range(BATCH):
            wanted = box_iou(truth.boxes[image], boxes[image]) * truth.valid[image, :, None]
            torch.testing.assert_close(iou[image], wanted)


@pytest.mark.parametrize("places", [1, 31, 45, 320])
def test_both_forms_answer_alike(places: int) -> None:
    truth, generator = truth_of([5, 0, 12], 1, crowd=True), torch.Generator().manual_seed(2)
    usable = torch.rand(BATCH, places, generator=generator) > 0.2
    said = torch.rand(truth.labels.shape, generator=generator)
    told = torch.rand(BATCH, 5, places, generator=generator)

    def results(found: Overlaps) -> list[Tensor]:
        most = found.object_most(found.iou)
        lowered = told.clone()
        found.lower_classes(1 - found.iou, truth.labels, lowered)
        mixed = found.of_touching(lambda pairs, iou: iou * pairs.of_objects(said))
        return [
            most, found.place_most(found.iou), found.dense(found.iou * found.of_objects(said)),
            found.dense(found.iou * found.of_places(usable.float())), found.dense(mixed), lowered,
            found.dense(found.reaches(found.iou, found.place_most(found.iou)) * found.iou),
            found.claims(found.iou, torch.where(most > 0, most, -1.0), said),
            *found.largest(found.iou, min(7, places)),
        ]  # fmt: skip

    for a, b in zip(*(results(found) for found in forms(boxes_of(places, 1), truth, usable)), strict=True):
        assert torch.equal(a, b)


def test_places_that_are_not_usable_or_not_finite_overlap_nothing() -> None:
    boxes, truth = boxes_of(45, 3), truth_of([5, 1, 12], 3)
    usable = torch.arange(45).expand(BATCH, -1) % 3 > 0
    boxes[:, 1::3, 2] = torch.nan
    for found in forms(boxes, truth, usable):
        most = found.place_most(found.iou)
        assert not most[:, ::3].any() and not most[:, 1::3].any() and most[:, 2::3].any()


def test_best_overlap_of_slices_of_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, truth = boxes_of(100, 4), truth_of([40, 0, 7], 4)
    monkeypatch.setattr("poise.pairwise.chunks.STREAM", BATCH * 100 * 4 * 7)
    wanted = torch.stack([(box_iou(b, t) * v).amax(1) for b, t, v in zip(boxes, truth.boxes, truth.valid, strict=True)])
    torch.testing.assert_close(best_overlap(boxes, truth), wanted)


@pytest.mark.parametrize("places", [3, 40, 2000])
def test_the_largest_are_those_of_a_stable_sort(places: int) -> None:
    values = torch.randint(0, 9, (2, 4, places), generator=torch.Generator().manual_seed(5)).float()  # many ties
    value, index = values.sort(dim=2, descending=True, stable=True)
    found = largest(values, 3)
    assert torch.equal(found[0], index[..., :3]) and torch.equal(found[1], value[..., :3])


@pytest.mark.parametrize("counts", [(0, 0, 0), (0, 7, 40)])
def test_places_are_gathered_and_spread(counts: tuple[int, ...]) -> None:
    priors, held = POINTS(maps_of(BATCH)), torch.zeros(BATCH, 0, dtype=torch.bool)
    size = priors.boxes.shape[1]
    generator = torch.Generator().manual_seed(6)
    order = torch.rand(BATCH, size, generator=generator).argsort(1)
    held = order < torch.tensor(counts)[:, None]
    predictions = Predictions(priors, torch.randn(BATCH, size, 5, generator=generator), boxes_of(size, 6))
    predictions.logits[1, held[1].nonzero()[:2], 3] = torch.nan
    places = Places.of(held)
    assert places.held.sum(1).tolist() == list(counts) and places.held.shape[1] == max(1, *counts)
    taken = places.take(predictions)
    for image in range(BATCH):
        kept = places.held[image]
        torch.testing.assert_close(taken.logits[image][kept], predictions.logits[image][held[image]], equal_nan=True)
        assert torch.equal(taken.boxes[image][kept], predictions.boxes[image][held[image]])
        assert torch.equal(taken.priors.centers[image][kept], priors.centers[0][held[image]])
        assert torch.equal(taken.priors.strides[image][kept], priors.strides[held[image]])
        assert torch.equal(places.of_all(priors.strides)[image][kept], priors.strides[held[image]])
    back = places.spread(taken.boxes[..., 0])
    assert torch.equal(back, torch.where(held, predictions.boxes[..., 0], 0.0))
    assert torch.equal(finite_of(predictions, held), held & predictions.finite())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "allows_dynamic_shapes", lambda device: False)
        assert torch.equal(finite_of(predictions, held), held & predictions.finite())
