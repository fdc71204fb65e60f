"""Resizing, normalizing, padding."""

from __future__ import annotations

import pytest
import torch

from poise.preprocess import CAFFE, Preprocess


@pytest.mark.parametrize(
    "height, width, wanted",
    [(480, 640, (800, 1067)), (640, 480, (1067, 800)), (300, 1000, (400, 1333)), (800, 1333, (800, 1333))],
)
def test_target_size_of_the_published_scale(height: int, width: int, wanted: tuple[int, int]) -> None:
    assert Preprocess().target_size(height, width) == wanted


def test_resize_samples_half_pixel_centres_without_antialiasing() -> None:
    """Halving averages exactly the two middle values of each pair."""
    row = torch.arange(8, dtype=torch.float32) / 8
    image = row.expand(3, 8, 8)
    found = Preprocess(short=4, long=4).resize(image)
    torch.testing.assert_close(found[0, 0], (row[0::2] + row[1::2]) / 2)


def test_resize_keeps_uint8() -> None:
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    found = Preprocess(short=40, long=60).resize(image)
    assert found.dtype == torch.uint8 and found.shape == (3, 40, 60)


def test_uint8_and_float_images_give_the_same_input() -> None:
    image = torch.randint(0, 256, (3, 5, 6), dtype=torch.uint8)
    torch.testing.assert_close(Preprocess().normalize(image), Preprocess().normalize(image.float() / 255))
    mean, std = torch.tensor(Preprocess().mean), torch.tensor(Preprocess().std)
    wanted = (image[:, 2, 3].float() - mean) / std
    torch.testing.assert_close(Preprocess().normalize(image)[:, 2, 3], wanted)


def test_bgr_is_fed_backwards() -> None:
    image = torch.stack([torch.full((2, 2), value, dtype=torch.uint8) for value in (200, 100, 50)])
    found = CAFFE.normalize(image)[:, 0, 0]
    torch.testing.assert_close(found, torch.tensor([50 - 103.53, 100 - 116.28, 200 - 123.675]))


def test_batch_pads_at_bottom_and_right_with_zero() -> None:
    images = [torch.ones(3, 30, 70), torch.ones(3, 64, 33)]
    pixels, sizes = Preprocess().batch(images)
    assert pixels.shape == (2, 3, 64, 96) and sizes.tolist() == [[30, 70], [64, 33]]
    assert float(pixels[0].sum()) == 3 * 30 * 70 and bool((pixels[0, :, :30, :70] == 1).all())


@pytest.mark.parametrize("wrong", [{"short": 0}, {"short": 900, "long": 800}, {"divisor": 0}, {"std": (1.0, 0.0, 1.0)}])
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Preprocess(**wrong)  # type: ignore[arg-type]


def test_with_size() -> None:
    assert (Preprocess().with_size(320).short, Preprocess().with_size(320).long) == (320, 320)
    assert Preprocess().with_size((600, 480)).short == 480
    with pytest.raises(ValueError):
        Preprocess().with_size((1, 2, 3))


@pytest.mark.parametrize("preprocess", [Preprocess(), CAFFE], ids=["rgb", "bgr"])
def test_a_batch_of_bytes_equals_normalized_images_in_a_batch(preprocess: Preprocess) -> None:
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((33, 40), (20, 70))]
    wanted, _ = preprocess.batch([preprocess.normalize(image) for image in images])
    assert torch.equal(preprocess.normalized_batch(images), wanted)
