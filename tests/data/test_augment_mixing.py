"""Mosaic, mixup and copy-paste: what the boxes say against what the pixels show."""

from __future__ import annotations

import pytest
import torch
from support.colored import COLOURS, assert_boxes_are_where_colors_are, colored_scene, extent
from torch import Tensor

from poise.data.augment import make_scene
from poise.data.augment.chance import seeded
from poise.data.augment.mixing import LEAST_UNCOVERED, TILE_FACTORS, copy_paste, mixup, mosaic
from poise.data.augment.scene import plain_boxes, size_of


@pytest.mark.parametrize("seed", range(12))
def test_mosaic_boxes_follow_pixels(seed: int) -> None:
    colors = ([0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11])
    sizes = ((90, 120), (120, 90), (60, 60), (100, 200))
    scenes = [colored_scene(*s, c, seed, crowd=(4,)) for s, c in zip(sizes, colors, strict=True)]
    with seeded(seed):
        combined = mosaic(scenes, 110, 130)
    assert size_of(combined) == (110, 130)
    assert assert_boxes_are_where_colors_are(combined, 2) >= 3
    assert combined["iscrowd"].tolist() == [label == 4 for label in combined["labels"].tolist()]
    shown = [c for c in range(12) if extent(combined["image"], c) is not None]
    assert set(combined["labels"].tolist()) - set(shown) == set()


def test_a_mosaic_loses_no_object_that_is_well_visible() -> None:
    """A color of which more than a fifth shows, even of the largest size it may have been scaled to, is annotated."""
    annotated = 0
    for seed in range(20):
        scenes = [colored_scene(90, 90, [color], seed) for color in range(4)]
        with seeded(seed):
            combined = mosaic(scenes, 100, 100)
        for color, scene in enumerate(scenes):
            box = plain_boxes(scene)[0]
            largest = float((box[2:] - box[:2]).prod()) * (TILE_FACTORS[1] * 100 / 90) ** 2
            image = combined["image"].as_subclass(Tensor)
            if int((image == COLOURS[color][:, None, None]).all(0).sum()) > 0.2 * largest:
                annotated += 1
                assert color in combined["labels"].tolist()
    assert annotated > 8


@pytest.mark.parametrize("seed", range(12))
def test_mixup_boxes_follow_pixels(seed: int) -> None:
    """The first scene is red on black, the second green on black; blending keeps the channels apart."""
    first, second = torch.zeros(2, 3, 80, 100, dtype=torch.uint8)
    first[0, 20:50, 30:70] = 255
    second[1, 10:60, 15:45] = 255
    red = make_scene(first, torch.tensor([[30.0, 20, 70, 50]]), torch.tensor([0]))
    green = make_scene(second, torch.tensor([[15.0, 10, 45, 60]]), torch.tensor([1]), torch.tensor([True]))
    with seeded(seed):
        mixed = mixup(red, green)
    image = mixed["image"].as_subclass(Tensor)
    assert size_of(mixed) == (80, 100)
    assert mixed["iscrowd"].tolist() == [label == 1 for label in mixed["labels"].tolist()]
    assert mixed["labels"][0] == 0
    for box, label in zip(plain_boxes(mixed), mixed["labels"].tolist(), strict=True):
        shown = image[label] > 50
        rows, columns = shown.any(1).nonzero().flatten(), shown.any(0).nonzero().flatten()
        found = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert (box - found).abs().max() <= 2


def test_mixup_leaves_the_first_image_where_the_second_has_no_pixels() -> None:
    first = make_scene(torch.full((3, 64, 64), 200, dtype=torch.uint8), torch.zeros(0, 4), torch.zeros(0))
    second = make_scene(torch.zeros(3, 64, 16, dtype=torch.uint8), torch.zeros(0, 4), torch.zeros(0))
    with seeded(3):
        image = mixup(first, second)["image"].as_subclass(Tensor)
    assert set((image == 200).all(0).all(0).tolist()) == {True, False}  # some columns untouched, some blended
    assert ((image == 200) | ((image >= 79) & (image <= 121))).all()


@pytest.mark.parametrize("seed", range(20))
def test_copy_paste_boxes_follow_pixels(seed: int) -> None:
    scene = colored_scene(120, 150, [0, 1, 2], seed)
    other = colored_scene(100, 100, [6, 9], seed, crowd=(9,))
    with seeded(seed):
        pasted = copy_paste(scene, other)
    labels = pasted["labels"].tolist()
    assert 9 not in labels, "crowd regions are not copied"
    before = plain_boxes(scene)
    for box, label in zip(plain_boxes(pasted), labels, strict=True):
        found = extent(pasted["image"], label)
        assert found is not None
        if label == 6:
            assert (box - found).abs().max() <= 1.5
        else:
            assert torch.equal(box, before[label])
            assert (found[:2] >= box[:2]).all() and (found[2:] <= box[2:]).all()
    for label in {0, 1, 2} - set(labels):
        area = float((before[label, 2:] - before[label, :2]).prod())
        box = before[label].int().tolist()
        part = pasted["image"].as_subclass(Tensor)[:, box[1] : box[3], box[0] : box[2]]
        was = scene["image"].as_subclass(Tensor)[:, box[1] : box[3], box[0] : box[2]]
        assert int((part == was).all(0).sum()) < LEAST_UNCOVERED * area


def test_copy_paste_removes_covered_objects_but_no_crowds() -> None:
    """A pasted square as large as the picture hides all else, in some of the draws."""
    image = torch.zeros(3, 60, 60, dtype=torch.uint8)
    boxes, labels = torch.tensor([[20.0, 20, 30, 30], [20, 20, 30, 30]]), torch.tensor([0, 1])
    small = make_scene(image, boxes, labels, torch.tensor([False, True]))
    large = make_scene(image + 200, torch.tensor([[0.0, 0, 60, 60]]), torch.tensor([2]))
    results = []
    for seed in range(30):
        with seeded(seed):
            result = copy_paste(small, large)
        assert 1 in result["labels"].tolist()
        covered = bool((result["image"].as_subclass(Tensor)[:, 20:30, 20:30] == 200).all())
        results.append(covered)
        if covered:
            assert 0 not in result["labels"].tolist() and 2 in result["labels"].tolist()
    assert any(results) and not all(results)


def test_mixing_does_not_write_into_its_arguments() -> None:
    scene, other = colored_scene(60, 60, [0, 1], 0), colored_scene(60, 60, [2, 3], 1)
    copies = scene["image"].clone(), other["image"].clone(), scene["boxes"].clone()
    with seeded(1):
        mosaic([scene, other, scene, other], 50, 50), mixup(scene, other), copy_paste(scene, other)
    assert torch.equal(scene["image"], copies[0]) and torch.equal(other["image"], copies[1])
    assert torch.equal(scene["boxes"], copies[2])


def test_a_mosaic_needs_four() -> None:
    with pytest.raises(ValueError, match="4 scenes"):
        mosaic([colored_scene(60, 60, [0], 0)], 50, 50)
