"""The DETR family's crop, large-scale jitter on a square, and copy-paste in place: pixels and boxes exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from poise.data.augment import Scene, build_pipeline, make_scene
from poise.data.augment import geometry as geometry_room
from poise.data.augment.chance import seeded
from poise.data.augment.geometry import canvas_jitter, resized_crop
from poise.data.augment.mixing import paste_in_place
from poise.data.augment.scene import FILL, plain_boxes, size_of
from poise.preprocess import Preprocess
from poise.recipes.augment import AugmentSettings


def scene_of(height: int, width: int, boxes: Sequence[Sequence[float]], value: int = 10) -> Scene:
    """An image whose pixels of the i-th box are i+1, of the rest ``value``."""
    image = torch.full((3, height, width), value, dtype=torch.uint8)
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        image[:, int(y1) : int(y2), int(x1) : int(x2)] = i + 1
    return make_scene(image, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.arange(len(boxes)))


def drawn(monkeypatch: pytest.MonkeyPatch, numbers: Sequence[int]) -> list[tuple[int, int]]:
    """The next whole numbers to be drawn; filled with the ranges that were requested."""
    ranges: list[tuple[int, int]] = []
    rest = iter(numbers)

    def next_number(least: int, greatest: int) -> int:
        ranges.append((least, greatest))
        return next(rest)

    monkeypatch.setattr(geometry_room, "whole_number", next_number)
    return ranges


def test_the_crop_draws_from_the_published_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = drawn(monkeypatch, [1, 450, 384, 30, 200])
    scene = scene_of(250, 400, [[100, 50, 200, 150], [0, 0, 20, 20]])
    crop = resized_crop(scene, (400, 500, 600), 4200, (384, 600))
    assert ranges == [(0, 2), (384, 500), (384, 600), (0, 500 - 450), (0, 800 - 384)]  # the image is 500 x 800 then
    assert size_of(crop) == (450, 384)
    torch.testing.assert_close(plain_boxes(crop), torch.tensor([[0.0, 70.0, 200.0, 270.0]]))  # the second is cut away
    assert int(crop["image"][0, 160, 100]) == 1 and int(crop["image"][0, 300, 100]) == 10


def test_small_images_are_cropped_no_further_than_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = drawn(monkeypatch, [0, 400, 400, 0, 0])
    crop = resized_crop(scene_of(100, 100, [[10, 10, 20, 20]]), (400, 500, 600), 4200, (384, 600))
    assert ranges[1:] == [(384, 400), (384, 400), (0, 0), (0, 0)] and size_of(crop) == (400, 400)


def test_the_longer_side_has_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = drawn(monkeypatch, [2, 133, 600, 0, 0])
    resized_crop(scene_of(50, 500, []), (400, 500, 600), 1333, (384, 600))
    assert ranges[1] == (133, 133) and ranges[2] == (384, 600)


@pytest.mark.parametrize("seed", range(6))
def test_crops_keep_whatever_is_left_of_an_object(seed: int) -> None:
    boxes = [[0.0, 0.0, 3.0, 240.0], [318.5, 100.0, 320.0, 101.0], [40.0, 40.0, 300.0, 200.0]]
    with seeded(seed):
        crop = resized_crop(scene_of(240, 320, boxes), (400, 500, 600), 4200, (384, 600))
    high, wide = size_of(crop)
    found = plain_boxes(crop)
    assert 384 <= high <= 600 and 384 <= wide <= 600
    assert (found[:, 2:] > found[:, :2]).all() and (found >= 0).all() and (found[:, 2] <= wide).all()


def literal_jitter(scene: Scene, side: int, factor: float, top: int, left: int) -> tuple[tuple[int, int], Tensor]:
    """Size before the cut, and boxes after it, straight from the recipe's words."""
    high, wide = size_of(scene)
    limit = int(side * factor)
    scale = min(limit / high, limit / wide)
    new_high, new_wide = int(high * scale + 0.5), int(wide * scale + 0.5)
    boxes = []
    for x1, y1, x2, y2 in plain_boxes(scene).tolist():
        columns = [x * new_wide / wide for x in (x1, x2)]
        rows = [y * new_high / high for y in (y1, y2)]
        x1, x2 = (min(max(x - left, 0), min(side, new_wide)) for x in columns)
        y1, y2 = (min(max(y - top, 0), min(side, new_high)) for y in rows)
        if x2 - x1 >= 0.01 and y2 - y1 >= 0.01:
            boxes.append([x1, y1, x2, y2])
    return (new_high, new_wide), torch.tensor(boxes).reshape(-1, 4)


@pytest.mark.parametrize("factor", [0.1, 0.55, 1.3, 2.0])
def test_jitter_on_a_square(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_of(60, 100, [[10, 5, 30, 25], [60, 30, 100, 60]])
    monkeypatch.setattr(geometry_room, "between", lambda least, greatest: factor)
    side = 64
    (high, wide), _ = literal_jitter(scene, side, factor, 0, 0)
    top, left = max(high - side, 0) // 2, max(wide - side, 0) // 3
    ranges = drawn(monkeypatch, [top, left])
    found = canvas_jitter(scene, side, (0.1, 2.0))
    assert ranges == [(0, max(high - side, 0)), (0, max(wide - side, 0))]
    assert size_of(found) == (side, side)
    torch.testing.assert_close(plain_boxes(found), literal_jitter(scene, side, factor, top, left)[1])
    gray = (found["image"] == FILL).all(0)
    assert gray[min(high, side) :].all() and gray[:, min(wide, side) :].all()
    assert not gray[: min(high, side), : min(wide, side)].any()


def literal_paste(target: Scene, source: Scene, chosen: list[int]) -> tuple[Tensor, list[list[float]]]:
    """Pixels and boxes with a mask for every object."""
    image, covered = target["image"].clone(), torch.zeros(size_of(target), dtype=torch.bool)
    boxes = []
    for i in chosen:
        x1, y1, x2, y2 = (int(v) for v in plain_boxes(source)[i].tolist())
        image[:, y1:y2, x1:x2] = source["image"][:, y1:y2, x1:x2]
        covered[y1:y2, x1:x2] = True
    for box in plain_boxes(target).tolist():
        mask = torch.zeros_like(covered)
        mask[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = True
        y, x = torch.where(mask & ~covered)
        if len(y):
            tight = [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]
            if all(abs(a - b) <= 10 for a, b in zip(tight, box, strict=True)) or len(y) > 300:
                boxes.append([float(v) for v in tight])
    return image, boxes + [plain_boxes(source)[i].tolist() for i in chosen]


@pytest.mark.parametrize("seed", range(8))
def test_pasting_in_place_is_its_description(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def boxes(count: int) -> list[list[int]]:
        corner = torch.randint(0, 60, (count, 2), generator=generator)
        side = torch.randint(4, 36, (count, 2), generator=generator)
        return torch.cat((corner, corner + side), 1).tolist()

    target, source = scene_of(96, 96, boxes(6)), scene_of(96, 96, boxes(5), value=200)
    with seeded(seed):
        found = paste_in_place(target, source)
    pasted = len(found["labels"]) and [
        i for box in plain_boxes(found).tolist() for i, own in enumerate(plain_boxes(source).tolist()) if box == own
    ]
    image, wanted = literal_paste(target, source, list(pasted or []))
    assert found["image"].equal(image) and plain_boxes(found).tolist() == wanted


def test_regions_are_neither_pasted_nor_cut() -> None:
    source = scene_of(40, 40, [[0, 0, 40, 40]])
    crowd = {**source, "iscrowd": torch.ones(1, dtype=torch.bool)}
    target = {**scene_of(40, 40, [[5, 5, 20, 20]]), "iscrowd": torch.ones(1, dtype=torch.bool)}
    for seed in range(4):
        with seeded(seed):
            assert paste_in_place(scene_of(40, 40, [[5, 5, 20, 20]]), crowd)["labels"].tolist() == [0]
            assert plain_boxes(paste_in_place(target, source))[0].tolist() == [5, 5, 20, 20]


def never() -> Scene:
    raise AssertionError("a second image was requested")


def run(settings: AugmentSettings, scene: Scene, partner: Callable[[], Scene] = never, seed: int = 0) -> Scene:
    with seeded(seed):
        return build_pipeline(settings, Preprocess(short=80, long=133))(scene, partner)


def test_the_pipeline_crops_before_it_resizes() -> None:
    settings = AugmentSettings(flip=0, crop=1.0, crop_short_choices=(40,), crop_sides=(20, 20), short_choices=(64,))
    found = run(settings, scene_of(60, 90, [[0, 0, 90, 60]]))
    assert size_of(found) == (64, 64)
    torch.testing.assert_close(plain_boxes(found), torch.tensor([[0.0, 0.0, 64.0, 64.0]]))
    assert size_of(run(AugmentSettings(flip=0, longest=100), scene_of(60, 120, []))) == (50, 100)


def test_the_square_pastes_a_second_image_that_went_the_same_way() -> None:
    settings = AugmentSettings(flip=0, scale_jitter=(1.0, 1.0), jitter_canvas=48, copy_paste=1.0)
    other = scene_of(24, 48, [[8, 4, 16, 12]], value=99)
    results = [run(settings, scene_of(48, 48, [[40, 40, 48, 48]]), lambda: other, seed) for seed in range(8)]
    counts = {len(one["labels"]) for one in results}
    assert counts == {1, 2} and all(size_of(one) == (48, 48) for one in results)


def test_an_image_that_lost_its_objects_makes_room() -> None:
    settings = AugmentSettings(flip=0, scale_jitter=(1.0, 1.0), jitter_canvas=48, redraw_empty=True)
    assert len(run(settings, scene_of(48, 48, []), lambda: scene_of(48, 48, [[1, 1, 9, 9]]))["labels"]) == 1
    kept = run(AugmentSettings(flip=0, scale_jitter=(1.0, 1.0), jitter_canvas=48), scene_of(48, 48, []))
    assert not len(kept["labels"])


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"jitter_canvas": 64}, "needs augment.scale_jitter"),
        ({"jitter_canvas": 64, "scale_jitter": (0.1, 2.0), "mosaic": 0.5}, "excludes mosaic"),
        ({"redraw_empty": True}, "give augment.jitter_canvas too"),
        ({"crop": 0.5, "crop_sides": (600, 384)}, "crop_sides"),
        ({"crop": 0.5, "crop_longest": 500}, "at most augment.crop_longest"),
        ({"crop": 1.5}, "must lie in"),
    ],
)
def test_settings_that_cannot_be_right(settings: dict[str, object], wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        AugmentSettings(**settings)  # type: ignore[arg-type]
