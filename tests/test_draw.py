"""Pictures of boxes, checked pixel by pixel where it matters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from poise.draw import PALETTE, class_color, default_font_size, draw_boxes, grid, shorten, side_by_side, to_picture
from poise.fonts import font_for

GREY = torch.full((3, 120, 160), 128, dtype=torch.uint8)


def test_the_frame_lies_on_the_box_in_the_color_of_the_class() -> None:
    picture = draw_boxes(GREY, [[20, 30, 100, 90]], [3], show_labels=False)
    for point in ((20, 60), (100, 60), (60, 30), (60, 90)):
        assert picture.getpixel(point) == PALETTE[3]
    assert picture.getpixel((60, 60)) == (128, 128, 128)
    assert to_picture(GREY).getpixel((20, 60)) == (128, 128, 128)  # the image itself is untouched


@pytest.mark.parametrize("label", range(len(PALETTE)))
@pytest.mark.parametrize("background", ["white", "black", "same"])
def test_a_frame_can_be_told_from_any_background(label: int, background: str) -> None:
    ground = {"white": (255, 255, 255), "black": (0, 0, 0), "same": class_color(label)}[background]
    picture = np.asarray(
        draw_boxes(Image.new("RGB", (160, 120), ground), [[20, 30, 100, 90]], [label], show_labels=False)
    )
    contrast = np.abs(picture[60, 10:30].astype(int) - np.array(ground)).sum(1).max()
    assert contrast > 150


def test_colors_are_distinct_and_fixed() -> None:
    colors = [class_color(label) for label in range(80)]
    assert len(set(colors)) == 80 and colors == [class_color(label) for label in range(80)]
    first = np.array(colors[:10], float)
    distance = np.abs(first[:, None] - first[None]).sum(2)
    assert distance[~np.eye(10, dtype=bool)].min() > 60


def test_captions_stay_within_the_picture_and_keep_the_score() -> None:
    box, long_name = [[150, 0, 159, 8]], ["a name that is far longer than this small picture is wide"]
    with_score, other_score = (draw_boxes(GREY, box, [0], [score], names=long_name) for score in (0.12, 0.89))
    assert with_score.size == (160, 120)
    assert with_score.tobytes() != other_score.tobytes()
    hidden = [draw_boxes(GREY, box, [0], [score], names=long_name, show_scores=False) for score in (0.12, 0.89)]
    assert hidden[0].tobytes() == hidden[1].tobytes()


def test_shortened_text_fits() -> None:
    font = font_for(14)
    text = shorten("a very long caption indeed", font, 80)
    assert text.endswith("…") and font.getlength(text) <= 80
    assert shorten("short", font, 80) == "short" and shorten("anything", font, 2) == ""


def test_the_best_detection_lies_on_top() -> None:
    boxes = [[20, 30, 100, 90], [20, 30, 100, 90]]
    for scores in ([0.9, 0.2], [0.2, 0.9]):
        picture = draw_boxes(GREY, boxes, [0, 1], scores, show_labels=False, show_scores=False)
        assert picture.getpixel((20, 60)) == PALETTE[int(np.argmax(scores))]


def test_boxes_outside_upside_down_empty_and_many() -> None:
    draw_boxes(GREY, [[-50, -50, 500, 500], [90, 90, 10, 10], [5, 5, 5, 5], [300, 300, 400, 400]], [0, 1, 2, 300])
    draw_boxes(GREY, torch.zeros(0, 4), torch.zeros(0))
    rng = np.random.default_rng(0)
    many = rng.uniform(0, 120, (500, 4))
    assert draw_boxes(GREY, many, rng.integers(0, 80, 500), rng.random(500)).size == (160, 120)
    assert draw_boxes(torch.zeros(3, 4, 5), [[0, 0, 3, 3]], [0], [0.5], names=["x"]).size == (5, 4)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="2 boxes, 1 labels"):
        draw_boxes(GREY, [[0, 0, 1, 1]] * 2, [0])
    with pytest.raises(ValueError, match="box 1 is not finite"):
        draw_boxes(GREY, [[0, 0, 1, 1], [0, 0, float("nan"), 1]], [0, 0])
    with pytest.raises(ValueError, match="an image tensor"):
        draw_boxes(torch.zeros(4, 5, 6), [], [])
    with pytest.raises(ValueError, match="got shape"):
        to_picture(np.zeros((4, 5), np.uint8))


def test_images_of_every_kind_give_the_same_picture() -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    pictures = [to_picture(image) for image in (array, tensor, tensor.float() / 255, Image.fromarray(array))]
    assert all(picture.tobytes() == array.tobytes() for picture in pictures)
    assert to_picture(tensor[:1]).getpixel((3, 2)) == (int(array[2, 3, 0]),) * 3


def test_letters_grow_with_the_picture() -> None:
    assert default_font_size((100, 100)) < default_font_size((1000, 800)) <= default_font_size((8000, 8000)) == 48


def test_grid_places_pictures_in_order() -> None:
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    sheet = grid([Image.new("RGB", (40, 20), c) for c in colors], columns=2, gap=4)
    assert sheet.size == (2 * 44 + 4, 2 * 24 + 4)
    assert [sheet.getpixel(p) for p in ((20, 14), (70, 14), (20, 40))] == colors
    row = side_by_side([Image.new("RGB", (40, 20), c) for c in colors], titles=["a", "b", "c"], gap=4)
    assert row.width == 3 * 44 + 4 and row.height > 28
    with pytest.raises(ValueError, match="at least one"):
        grid([])
    with pytest.raises(ValueError, match="3 pictures but 1 titles"):
        grid([Image.new("RGB", (4, 4))] * 3, titles=["a"])
