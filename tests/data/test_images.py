"""Image files: formats, depths, EXIF orientation, damage."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.write_data import picture

from poise.data import BadImage, image_size, read_image


def colors() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
def test_lossless_formats_give_the_pixels(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(colors()).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.dtype == torch.uint8 and image.is_contiguous()
    assert torch.equal(image, torch.from_numpy(colors()).permute(2, 0, 1))


def test_jpeg_is_close(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 100, 50)).save(tmp_path / "a.jpg", quality=95)
    mean = read_image(tmp_path / "a.jpg").float().mean((1, 2))
    assert torch.allclose(mean, torch.tensor([200.0, 100.0, 50.0]), atol=3)


def test_cmyk_jpeg_gets_its_colors(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 100, 50)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    mean = read_image(tmp_path / "a.jpg").float().mean((1, 2))
    assert torch.allclose(mean, torch.tensor([200.0, 100.0, 50.0]), atol=4)


def test_grey_palette_bilevel_and_alpha(tmp_path: Path) -> None:
    rgb = Image.new("RGB", (6, 4), (10, 200, 30))
    rgb.quantize(4).save(tmp_path / "palette.png")
    rgb.convert("RGBA").save(tmp_path / "alpha.png")
    Image.new("L", (6, 4), 77).save(tmp_path / "gray.png")
    Image.new("1", (6, 4), 1).save(tmp_path / "bilevel.png")
    Image.new("LA", (6, 4), (77, 0)).save(tmp_path / "gray_alpha.png")
    expected = {"palette": (10, 200, 30), "alpha": (10, 200, 30), "gray": (77,) * 3, "bilevel": (255,) * 3}
    for name, color in {**expected, "gray_alpha": (77,) * 3}.items():
        image = read_image(tmp_path / f"{name}.png")
        assert image.shape == (3, 4, 6)
        assert image[:, 0, 0].tolist() == list(color), name


def test_16_bit_grey_keeps_the_upper_8_bits(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256, 65535]], np.uint16)
    for suffix in ("png", "tiff"):
        Image.fromarray(values).save(tmp_path / f"a.{suffix}")
        assert read_image(tmp_path / f"a.{suffix}")[:, 0].tolist() == [[0, 0, 1, 255]] * 3


def test_first_frame_of_many(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in (10, 20)]
    frames[0].save(tmp_path / "a.tiff", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.tiff")[0].unique().tolist() == [10]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_follows_the_annotated_size(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(colors()).save(path, exif=exif)
    stored = colors()  # literal rules of the EXIF standard on rows and columns
    shown = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored[::-1].transpose(1, 0, 2),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: stored[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    height, width = shown.shape[:2]
    assert image_size(path) == (width, height)
    assert np.array_equal(read_image(path).permute(1, 2, 0).numpy(), shown)
    assert np.array_equal(read_image(path, (width, height)).permute(1, 2, 0).numpy(), shown)
    if orientation >= 5:
        assert np.array_equal(read_image(path, (7, 5)).permute(1, 2, 0).numpy(), stored)
    with pytest.raises(BadImage, match="annotated as 9x9") as caught:
        read_image(path, (9, 9))
    assert caught.value.kind == "image-size-differs"


def damaged(path: Path, kind: str) -> Path:
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole, "JPEG")
    gif = io.BytesIO()
    Image.new("P", (4, 4)).save(gif, "GIF")
    content = {
        "image-empty": b"",
        "image-truncated": whole.getvalue()[: len(whole.getvalue()) // 2],
        "image-unreadable": b"\xff\xd8\xff" + b"\0" * 50,
        "image-unsupported": gif.getvalue(),
    }
    if kind in content:
        path.write_bytes(content[kind])
    return path


@pytest.mark.parametrize(
    "kind", ["image-missing", "image-empty", "image-truncated", "image-unreadable", "image-unsupported"]
)
def test_damage_is_named_with_file_and_cure(tmp_path: Path, kind: str) -> None:
    with pytest.raises(BadImage, match="a.jpg: .*; ") as caught:
        read_image(damaged(tmp_path / "a.jpg", kind))
    assert caught.value.kind == kind
    again = pickle.loads(pickle.dumps(caught.value))  # as from a worker process
    assert str(again) == str(caught.value) and again.kind == kind


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp"])
def test_any_cut_is_a_bad_image_or_an_image(tmp_path: Path, suffix: str) -> None:
    whole = picture(tmp_path / f"whole.{suffix}").read_bytes()
    kinds = []
    for length in range(1, len(whole), max(1, len(whole) // 40)):
        path = tmp_path / f"cut.{suffix}"
        path.write_bytes(whole[:length])
        try:
            read_image(path)
        except BadImage as error:
            kinds.append(error.kind)
    assert len(kinds) > 30
    assert set(kinds) <= {"image-truncated", "image-unreadable", "image-unsupported"}


def test_limit_of_pixels(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    with pytest.raises(BadImage, match="more than the limit of 3071") as caught:
        read_image(path, max_pixels=64 * 48 - 1)
    assert caught.value.kind == "image-too-large"
    assert read_image(path, max_pixels=64 * 48).shape == (3, 48, 64)


def test_bomb_is_refused(tmp_path: Path) -> None:
    header = bytearray(picture(tmp_path / "a.png").read_bytes())
    header[16:24] = (60000).to_bytes(4, "big") * 2
    import zlib

    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(header)
    with pytest.raises(BadImage) as caught:
        read_image(tmp_path / "bomb.png")
    assert caught.value.kind == "image-too-large"


def test_floating_point_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(BadImage, match="floating-point"):
        read_image(tmp_path / "a.tiff")


def test_size_of_a_png_needs_its_header_only(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:60])
    assert image_size(path) == (64, 48)
    with pytest.raises(BadImage, match="truncated"):
        read_image(path)
