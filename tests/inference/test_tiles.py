"""Tiling: what is in a large image comes back once, whole, and at the right position."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from inference.stand_in import scene, stand_in

from poise.inference import Frame, Tiling, detect_frames
from poise.inference.tiles import merge

Rectangle = tuple[int, int, int, int, int]


def found_in(
    image: torch.Tensor, tiling: Tiling | None, smallest: float = 10, largest: float = 10_000
) -> list[Rectangle]:
    """Detections as sorted rectangles rounded to pixels."""
    model = stand_in(smallest, largest)
    ((_, (boxes, _, labels)),) = detect_frames(model, [Frame(image)], batch_size=4, tiling=tiling)
    return sorted((*map(round, box), label) for box, label in zip(boxes.tolist(), labels.tolist(), strict=True))


@pytest.mark.parametrize(("height", "width"), [(100, 100), (640, 640), (641, 1000), (2000, 300), (5000, 777)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_windows_cover_the_image_with_the_overlap(height: int, width: int, overlap: float) -> None:
    tiling = Tiling(640, overlap)
    covered = np.zeros((height, width), bool)
    windows = tiling.windows(height, width)
    for x1, y1, x2, y2 in windows:
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
        assert (x2 - x1, y2 - y1) == (min(640, width), min(640, height))
        covered[y1:y2, x1:x2] = True
    assert covered.all()
    starts = sorted({y1 for _, y1, _, _ in windows})
    assert all(640 - (b - a) >= 640 * overlap - 1 for a, b in itertools.pairwise(starts))


def test_small_objects_are_lost_without_and_found_with_tiles() -> None:
    rng = np.random.default_rng(0)
    corners = [(x * 97 + 20, y * 83 + 15) for x in range(12) for y in range(9)]
    objects = sorted((x, y, x + 14, y + 12, int(rng.integers(0, 3))) for x, y in corners)
    image = scene(800, 1250, objects)
    assert found_in(image, None) == []
    assert found_in(image, Tiling(320, 0.25)) == objects


@pytest.mark.parametrize("shift", range(-60, 61, 12))
def test_an_object_across_tile_borders_comes_back_once(shift: int) -> None:
    """Tiles of 400 begin at 0, 300, 600: objects smaller than the overlap are whole in one of them."""
    objects = sorted(
        [
            (300 + shift, 500, 360 + shift, 540, 0),
            (500, 300 + shift, 540, 390 + shift, 1),
            (370 + shift, 370, 420 + shift, 420, 2),
        ]
    )
    image = scene(1000, 1000, objects)
    assert found_in(image, Tiling(400, 0.25), smallest=20) == objects


def test_a_large_object_comes_from_the_whole_image() -> None:
    objects: list[Rectangle] = [(100, 150, 900, 820, 1)]
    (found,) = found_in(scene(1000, 1000, objects), Tiling(400, 0.25))
    assert found == pytest.approx(objects[0], abs=4)  # a pixel of its input is 3.9 of the image


@pytest.mark.parametrize("box", [(50, 420, 950, 460), (430, 30, 470, 930), (250, 180, 760, 320)])
def test_fragments_that_no_view_sees_whole_are_joined(box: tuple[int, int, int, int]) -> None:
    """Too thin or too large for the whole image's view, and longer than every tile."""
    objects: list[Rectangle] = [(*box, 0)]
    model_sees = {"smallest": 40.0}  # in pixels of the input: 40 of the tile, 156 of the whole image
    assert found_in(scene(1000, 1000, objects), Tiling(400, 0.25), **model_sees) == objects


def test_neighbors_of_one_class_stay_apart() -> None:
    """Two objects that touch the same border from both sides are not one."""
    objects = sorted(
        [(310, 100, 355, 140, 0), (360, 100, 420, 140, 0), (310, 600, 420, 640, 1), (310, 645, 420, 690, 1)]
    )
    assert found_in(scene(1000, 1000, objects), Tiling(400, 0.25), smallest=20) == objects


def test_objects_at_the_image_s_own_border_are_not_cut() -> None:
    objects = sorted([(0, 0, 30, 30, 0), (970, 0, 1000, 40, 0), (0, 960, 50, 1000, 2), (975, 975, 1000, 1000, 1)])
    assert found_in(scene(1000, 1000, objects), Tiling(400, 0.25), smallest=12) == objects


def test_tiles_go_through_the_network_in_batches() -> None:
    model = stand_in()
    list(detect_frames(model, [Frame(scene(1000, 1000, []))], batch_size=4, tiling=Tiling(400, 0.25)))
    assert model.network.calls == [1, 4, 4, 1]  # the whole image, then nine tiles
    model.network.calls.clear()
    list(detect_frames(model, [Frame(scene(300, 300, []))], batch_size=4, tiling=Tiling(400, 0.25)))
    assert model.network.calls == [1]


def test_merging_keeps_classes_apart_and_the_best_of_doubles() -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [50, 50, 60, 60]]).float()
    scores, labels = torch.tensor([0.5, 0.9, 0.7, 0.2]), torch.tensor([0, 0, 1, 0])
    kept = merge(boxes, scores, labels, torch.zeros(4, 4, dtype=torch.bool), nms=0.5)
    assert kept[0].tolist() == [boxes[i].tolist() for i in (1, 2, 3)]
    assert kept[1].tolist() == pytest.approx([0.9, 0.7, 0.2])
    empty = merge(boxes[:0], scores[:0], labels[:0], torch.zeros(0, 4, dtype=torch.bool), nms=0.5)
    assert [len(part) for part in empty] == [0, 0, 0]


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 32"):
        Tiling(8)
    with pytest.raises(ValueError, match="overlap=1"):
        Tiling(640, 1.0)
    with pytest.raises(ValueError, match="batch_size=0"):
        next(detect_frames(stand_in(), [], batch_size=0))
    with pytest.raises(ValueError, match="score_threshold=30"):
        next(detect_frames(stand_in(), [], score_threshold=30))
