"""NanoDet's warp and colors: pixels move with their boxes, values change as defined, evaluation resizes alike."""

from __future__ import annotations

import colorsys

import pytest
import torch
from torch import Tensor

from poise.data.augment import EvaluationPipeline, Scene, build_pipeline, make_scene
from poise.data.augment import color as color_module
from poise.data.augment.chance import seeded
from poise.data.augment.color import recolor
from poise.data.augment.geometry import warp
from poise.data.augment.scene import plain_boxes
from poise.preprocess import NANODET
from poise.recipes import AugmentSettings

NANODET_WARP = AugmentSettings(flip=0.5, warp_scale=(0.6, 1.4), warp_stretch=(0.8, 1.2), warp_shift=0.2, recolor=0.5)


def square(height: int, width: int, box: tuple[int, int, int, int]) -> Scene:
    """A white rectangle on gray, and its box."""
    image = torch.full((3, height, width), 60, dtype=torch.uint8)
    x1, y1, x2, y2 = box
    image[:, y1:y2, x1:x2] = 255
    return make_scene(image, torch.tensor([box]).float(), torch.tensor([1]))


def bright_hull(image: Tensor) -> Tensor:
    ys, xs = (image[0].int() > 157).nonzero().unbind(1)
    return torch.stack((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)).float()


def test_pixels_move_with_their_boxes() -> None:
    scene = square(120, 200, (80, 40, 130, 80))
    corners = set()
    for seed in range(60):
        with seeded(seed):
            moved = warp(scene, 96, 128, scale=(0.6, 1.4), stretch=(0.8, 1.2), shift=0.2)
        assert moved["image"].shape == (3, 96, 128)
        assert (bright_hull(moved["image"]) - plain_boxes(moved)[0]).abs().max() <= 1.5
        corners.add(int(plain_boxes(moved)[0, 0]))
    assert len(corners) > 20


def test_factors_and_shifts_stay_in_their_ranges() -> None:
    scene = square(100, 100, (45, 45, 55, 55))
    widths, middles = [], []
    for seed in range(300):
        with seeded(seed):
            box = plain_boxes(warp(scene, 200, 200, scale=(0.6, 1.4), stretch=(0.8, 1.2), shift=0.2))[0]
        widths.append(float(box[2] - box[0]) / 20)
        middles.append(float(box[0] + box[2]) / 400)
    assert 0.48 <= min(widths) < 0.6 and 1.45 < max(widths) <= 1.68
    assert 0.3 <= min(middles) < 0.32 and 0.68 < max(middles) <= 0.7


def test_no_change_gives_the_corner_aligned_resize() -> None:
    scene = square(75, 100, (10, 10, 50, 50))
    moved = warp(scene, 64, 64, scale=(1.0, 1.0), stretch=(), shift=0.0)
    assert torch.equal(
        moved["image"].as_subclass(Tensor), NANODET.with_size(64).resize(scene["image"].as_subclass(Tensor))
    )
    torch.testing.assert_close(plain_boxes(moved), torch.tensor([[6.4, 10 * 64 / 75, 32.0, 50 * 64 / 75]]))


def test_what_leaves_the_canvas_is_removed_and_the_rest_is_black() -> None:
    scene = square(100, 100, (0, 0, 8, 8))
    moved = warp(scene, 100, 100, scale=(1.4, 1.4), stretch=(), shift=0.0)
    assert not len(moved["labels"]) and not len(moved["boxes"])
    small = warp(scene, 100, 100, scale=(0.5, 0.5), stretch=(), shift=0.0)
    assert int(small["image"][:, :24].max()) == 0 and int(small["image"][:, 30:70, 40:70].min()) == 60


def test_training_and_evaluation_of_nanodet() -> None:
    scene = square(120, 200, (80, 40, 130, 80))
    training, evaluation = (
        build_pipeline(NANODET_WARP, NANODET.with_size(96)),
        EvaluationPipeline(NANODET.with_size(96)),
    )
    with seeded(1):
        first = training(scene, lambda: scene)
    with seeded(1):
        again = training(scene, lambda: scene)
    assert torch.equal(first["image"], again["image"]) and first["image"].shape == (3, 96, 96)
    assert first["image"].dtype == torch.uint8
    plain = evaluation(scene, lambda: scene)["image"].as_subclass(Tensor)
    assert torch.equal(plain, NANODET.with_size(96).resize(scene["image"].as_subclass(Tensor)))


def test_saturation_is_that_of_hsv(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.randint(30, 220, (3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    draws = iter([False, False, True])
    monkeypatch.setattr(color_module, "happens", lambda probability: next(draws))
    monkeypatch.setattr(color_module, "between", lambda low, high: 0.7)
    found = recolor(make_scene(image, torch.zeros(0, 4), torch.zeros(0)), 0.5)["image"]
    for y in range(4):
        for x in range(5):
            hue, saturation, value = colorsys.rgb_to_hsv(*(image[:, y, x].float() / 255).tolist())
            wanted = torch.tensor(colorsys.hsv_to_rgb(hue, saturation * 0.7, value)) * 255
            assert (found[:, y, x].float() - wanted).abs().max() <= 0.51


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"warp_scale": (1.4, 0.6)}, "minimum, maximum"),
        ({"warp_shift": 0.2}, "give augment.warp_scale"),
        ({"recolor": 2.0}, "in "),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentSettings(**wrong)
