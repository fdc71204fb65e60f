"""Geometry of augmentation against hand-made numbers and against the pixels themselves."""

from __future__ import annotations

import pytest
import torch
from support.colored import assert_boxes_are_where_colors_are, colored_scene
from torch import Tensor
from torchvision.transforms import v2

from poise.data.augment import Scene, make_scene
from poise.data.augment.chance import seeded
from poise.data.augment.geometry import draw_size, fit, large_scale_jitter, min_iou_crop, resize, window
from poise.data.augment.scene import clip_objects, plain_boxes, size_of
from poise.preprocess import Preprocess


def scene_of(boxes: list[list[float]], height: int = 100, width: int = 200, crowd: list[bool] | None = None) -> Scene:
    flags = None if crowd is None else torch.tensor(crowd)
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    return make_scene(image, torch.tensor(boxes).reshape(-1, 4), torch.arange(len(boxes)), flags)


def test_resize_multiplies_by_the_actual_factor_of_each_axis() -> None:
    resized = resize(scene_of([[10, 20, 30, 60], [0, 0, 200, 100]]), 33, 67)
    expected = torch.tensor([[10 * 67 / 200, 20 * 33 / 100, 30 * 67 / 200, 60 * 33 / 100], [0, 0, 67, 33]])
    assert torch.allclose(plain_boxes(resized), expected)
    assert size_of(resized) == (33, 67)


def test_resized_pixels_equal_those_of_preprocess() -> None:
    image = torch.randint(0, 256, (3, 61, 97), dtype=torch.uint8)
    preprocess = Preprocess(short=40, long=80)
    scene = make_scene(image, torch.zeros(0, 4), torch.zeros(0))
    for exact, tolerance in ((True, 0), (False, 1)):
        resized = resize(scene, *preprocess.target_size(61, 97), exact=exact)["image"].as_subclass(Tensor)
        assert int((resized.int() - preprocess.resize(image).int()).abs().max()) <= tolerance


def test_flip_mirrors_boxes_and_pixels() -> None:
    scene = colored_scene(60, 90, [0, 1, 2, 3], 0)
    flipped = v2.RandomHorizontalFlip(1.0)(scene)
    x1, y1, x2, y2 = plain_boxes(scene).unbind(1)
    assert torch.equal(plain_boxes(flipped), torch.stack((90 - x2, y1, 90 - x1, y2), 1))
    assert assert_boxes_are_where_colors_are(flipped, 0) == 4


def test_window_cuts_and_extends() -> None:
    scene = scene_of([[10, 20, 30, 60], [150, 10, 199, 90]])
    cut = window(scene, top=30, left=-5, height=80, width=60)
    assert plain_boxes(cut).tolist() == [[15, 0, 35, 30]]  # the second lies outside
    image = cut["image"].as_subclass(Tensor)
    assert (image[:, :, :5] == 114).all() and (image[:, 70:] == 114).all() and (image[:, :70, 5:] == 0).all()


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ([0, 0, 50, 50], True),
        ([-45, 0, 5, 50], True),  # a tenth remains
        ([-46, 0, 4, 50], False),  # less
        ([-0.5, 0, 0.6, 50], False),  # less than a pixel wide, and was more
        ([0, 0, 0.5, 3], True),  # was as small before
        ([50, 200, 60, 220], False),  # outside
        ([10, 10, 10, 30], False),  # empty
    ],
)
def test_rule_for_cut_objects(box: list[float], kept: bool) -> None:
    assert len(clip_objects(scene_of([box]))["labels"]) == kept


def test_crowd_regions_stay_while_any_of_them_does() -> None:
    slivers = [[-99.0, 0.0, 1.0, 50.0], [-99.0, 0.0, 0.5, 50.0], [-99.0, 0.0, -1.0, 50.0]]
    kept = clip_objects(scene_of(slivers, crowd=[True] * 3))
    assert kept["labels"].tolist() == [0, 1] and kept["iscrowd"].all()


@pytest.mark.parametrize("seed", range(12))
def test_boxes_follow_pixels(seed: int) -> None:
    """Every geometric transform, on rectangles whose colors say where they went."""
    scene = colored_scene(120, 150, list(range(9)), seed, crowd=(1, 4))
    looked_at = 0
    with seeded(seed):
        looked_at += assert_boxes_are_where_colors_are(resize(scene, 77, 203), 1.5)
        looked_at += assert_boxes_are_where_colors_are(fit(scene, 100, 100, 1.3), 1.5)
        looked_at += assert_boxes_are_where_colors_are(window(scene, top=-10, left=30, height=90, width=200), 0.5)
        looked_at += assert_boxes_are_where_colors_are(min_iou_crop(scene), 0.5)
        looked_at += assert_boxes_are_where_colors_are(large_scale_jitter(scene, 110, 140, (0.5, 2.0)), 2)
    assert looked_at > 20


def test_flags_and_labels_stay_with_their_boxes() -> None:
    for seed in range(12):
        with seeded(seed):
            scene = min_iou_crop(colored_scene(120, 150, list(range(9)), seed, crowd=(1, 4)))
            scene = large_scale_jitter(scene, 100, 120, (0.6, 1.8))
        assert scene["iscrowd"].tolist() == [label in (1, 4) for label in scene["labels"].tolist()]
        assert len(scene["boxes"]) == len(scene["labels"]) == len(scene["ignore"])


def test_min_iou_crop_keeps_objects_by_center_and_crowds_by_touch() -> None:
    scene = scene_of([[80, 30, 120, 70], [0, 0, 200, 100]], crowd=[False, True])
    crops = 0
    for seed in range(20):
        with seeded(seed):
            cropped = min_iou_crop(scene)
        crops += size_of(cropped) != size_of(scene)
        assert 1 in cropped["labels"].tolist()
        if size_of(cropped) != size_of(scene):
            height, width = size_of(cropped)
            crowd_box = plain_boxes(cropped)[cropped["iscrowd"]][0]
            assert crowd_box.tolist() == [0, 0, width, height]
    assert crops > 5


def test_jitter_never_exceeds_the_image_size_and_reaches_both_sides_of_it() -> None:
    sizes = set()
    for seed in range(30):
        with seeded(seed):
            sizes.add(size_of(large_scale_jitter(scene_of([[10, 10, 60, 60]]), 50, 100, (0.5, 2.0))))
    assert max(sizes) == (50, 100) and min(sizes) < (40, 80)
    assert all(height <= 50 and width <= 100 for height, width in sizes)


def test_drawn_sizes() -> None:
    preprocess = Preprocess(short=80, long=133)
    with seeded(0):
        drawn = [draw_size(preprocess, (48, 96)) for _ in range(600)]
        chosen = {draw_size(preprocess, (), (48, 64)).short for _ in range(50)}
        stretched = [draw_size(Preprocess(short=80, long=160, keep_ratio=False), (40, 80)) for _ in range(20)]
    assert {size.short for size in drawn} == set(range(48, 97)) and {size.long for size in drawn} == {133}
    assert chosen == {48, 64}
    assert all(size.long == 2 * size.short for size in stretched)
    assert draw_size(preprocess) == preprocess


def test_empty_scenes_pass_through_everything() -> None:
    empty = scene_of([])
    for changed in (min_iou_crop(empty), large_scale_jitter(empty, 50, 60, (0.5, 2)), resize(empty, 9, 9)):
        assert plain_boxes(changed).shape == (0, 4) and len(changed["iscrowd"]) == 0
