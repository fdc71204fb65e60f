"""What can be predicted on, and in which order it comes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from inference.stand_in import scene, stand_in
from PIL import Image

from poise.data.errors import BadImage
from poise.inference import BadImageWarning, Frame, detect_frames, detect_images, frame_rate, frames_of, write_video
from poise.inference.sources import as_image
from poise.models import create_model

SCENE = scene(60, 90, [(10, 20, 40, 50, 0)])
ARRAY = SCENE.permute(1, 2, 0).numpy()


def boxes_of(source: object) -> list[list[int]]:
    model = stand_in()
    found = [found for _, found in detect_frames(model, frames_of(source))]
    return [[round(v) for v in box] for boxes, _, _ in found for box in boxes.tolist()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures named out of order, of growing width, among other files."""
    for name, width in (("b.png", 20), ("a.jpg", 10), ("C.PNG", 30), ("10.bmp", 40)):
        Image.new("RGB", (width, 8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "deeper").mkdir()
    Image.new("RGB", (50, 8)).save(tmp_path / "deeper" / "d.png")
    return tmp_path


def widths(source: object, **settings: object) -> list[int]:
    return [frame.image.shape[2] for frame in frames_of(source, **settings)]


def test_every_way_to_give_one_image(tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    Image.fromarray(ARRAY).save(path)
    ways = [path, str(path), Image.fromarray(ARRAY), ARRAY, SCENE, SCENE.float() / 255, SCENE[None], [path], (ARRAY,)]
    for way in ways:
        assert boxes_of(way) == [[10, 20, 40, 50]]


def test_folder_glob_and_list_orders(folder: Path) -> None:
    assert widths(folder) == [40, 30, 10, 20]  # by name, as the system sorts them: 10.bmp, C.PNG, a.jpg, b.png
    assert widths(folder / "*.png") == [20]
    assert widths(str(folder / "**" / "*.png")) == [20, 50]
    assert widths([folder / "b.png", np.zeros((8, 5, 3), np.uint8), folder / "deeper"]) == [20, 5, 50]
    assert [frame.path for frame in frames_of(folder / "*.jpg")] == [folder / "a.jpg"]


def test_a_generator_is_read_as_it_is_needed() -> None:
    taken = []

    def stream():
        for i in range(100):
            taken.append(i)
            yield SCENE

    model = stand_in()
    results = detect_frames(model, frames_of(stream()), batch_size=3)
    next(results)
    assert len(taken) == 3 and model.network.calls == [3]
    for _ in range(3):
        next(results)
    assert len(taken) == 6


def test_batches_are_as_large_as_asked_of_images_of_one_input_shape() -> None:
    heights = (50, 100, 50, 100, 50, 100, 100)
    images = [scene(height, 100, [(5 * i, 8, 5 * i + 30, 40, i % 3)]) for i, height in enumerate(heights)]
    model = stand_in()
    found = list(detect_frames(model, [Frame(image) for image in images], batch_size=4))
    assert model.network.calls == [2, 2, 1, 2]
    for i, (_, (boxes, _, labels)) in enumerate(found):
        assert boxes[0].tolist() == pytest.approx([5 * i, 8, 5 * i + 30, 40], abs=1) and labels.tolist() == [i % 3]


@pytest.mark.parametrize("name", ["atss_r18_fpn", "deformable_detr_twostage_r18"])
def test_an_image_is_told_the_same_beside_others(name: str) -> None:
    """Padded as far as its neighbors it would have other neighbors at its edges."""
    torch.manual_seed(0)
    dense = "atss" in name
    options = (
        {"depth": 1, "score_threshold": 0.0} if dense else {"queries": 20, "encoder_layers": 1, "decoder_layers": 1}
    )
    small = {"backbone": "mobilenetv3_small_100", "channels": 32, "image_size": 96, **options}
    model = create_model(name, num_classes=3, **small).eval()
    if dense:  # scores that differ between positions
        model.network.branch.head.classes.weight.data *= 100
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((48, 96), (96, 60), (96, 96), (48, 96))]
    for image, together in zip(images, detect_images(model, images), strict=True):
        alone = detect_images(model, [image])[0]
        assert len(alone[1]) > 10
        for one, two in zip(together, alone, strict=True):
            torch.testing.assert_close(one, two, atol=1e-3, rtol=1e-4)


def test_boxes_are_in_the_original_pixels_of_a_large_image() -> None:
    image = scene(1200, 700, [(100, 900, 400, 1190, 2)])
    assert boxes_of(image)[0] == pytest.approx([100, 900, 400, 1190], abs=5)  # a pixel of the input is 4.7 of the image


def test_modes_of_pictures() -> None:
    gray = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    rgba = Image.fromarray(np.dstack((ARRAY, np.full(ARRAY.shape[:2], 90, np.uint8))))
    assert as_image(gray)[:, 3, 5].tolist() == [53] * 3
    assert torch.equal(as_image(rgba), SCENE) and torch.equal(as_image(np.asarray(rgba)), SCENE)
    assert as_image(Image.fromarray(ARRAY).convert("CMYK")).shape == (3, 60, 90)
    assert torch.equal(as_image(Image.fromarray(ARRAY).quantize()), SCENE)
    deep = Image.fromarray((np.arange(256, dtype=np.uint16) * 256).reshape(16, 16))
    assert torch.equal(as_image(deep), as_image(gray))
    assert torch.equal(as_image(np.asarray(gray)), as_image(gray))
    assert torch.equal(as_image(np.asarray(gray)[:, :, None]), as_image(gray))


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "I;16"])
def test_files_of_every_mode_are_predicted_on(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(ARRAY).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    path = tmp_path / ("file.jpg" if mode == "CMYK" else "file.png")
    picture.save(path, **({"quality": 100} if mode == "CMYK" else {}))
    expected = [] if mode in ("L", "I;16") else [[10, 20, 40, 50]]  # without color there is nothing to see
    found = boxes_of(path)
    assert len(found) == len(expected)
    for box, right in zip(found, expected, strict=True):
        assert box == pytest.approx(right, abs=2)


@pytest.mark.parametrize("as_file", [True, False])
def test_exif_orientation_is_applied(tmp_path: Path, as_file: bool) -> None:
    stored = Image.fromarray(ARRAY).rotate(90, expand=True)  # shown turned back by the header
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    buffer = io.BytesIO()
    stored.save(buffer, "PNG", exif=exif)
    (tmp_path / "turned.png").write_bytes(buffer.getvalue())
    source = tmp_path / "turned.png" if as_file else Image.open(tmp_path / "turned.png")
    assert boxes_of(source) == [[10, 20, 40, 50]]


def test_a_bad_image_stops_or_is_left_out_with_a_warning(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"\x89PNG not really")
    with pytest.raises(BadImage, match=r"b\.png"):
        widths(folder)
    with pytest.warns(BadImageWarning, match=r"b\.png") as caught:
        assert widths(folder, on_bad_image="skip") == [40, 30, 10]
    assert len(caught) == 1
    with pytest.warns(BadImageWarning, match="missing"):
        assert widths([folder / "a.jpg", folder / "missing.png"], on_bad_image="skip") == [10]
    with pytest.raises(BadImage):
        widths(folder / "b.png", on_bad_image="skip")  # the only image that was given
    with pytest.raises(ValueError, match="'error' or 'skip'"):
        widths(folder, on_bad_image="ignore")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing at"):
        widths(tmp_path / "none.png")
    with pytest.raises(FileNotFoundError, match="no image in"):
        widths(tmp_path)
    with pytest.raises(FileNotFoundError, match="match of a pattern"):
        widths(tmp_path / "*.png")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.zeros((4, 5, 2), np.uint8), "image array is"),
        (np.zeros((4, 5, 3), np.float32), "must be uint8"),
        (torch.zeros(5, 4, 4), "image tensor is"),
        (torch.full((3, 4, 4), 255.0), "divide by 255"),
        (torch.full((3, 4, 4), float("nan")), "must lie in"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "uint8 or float"),
        (7.5, "cannot predict on a float"),
        (True, "cannot predict on a bool"),
    ],
)
def test_what_is_no_image_is_refused(source: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        widths(source)


def test_video_frames_and_back(tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    scenes = [scene(64, 96, [(8 * i, 16, 8 * i + 32, 48, 0)]) for i in range(6)]
    count = write_video((Image.fromarray(s.permute(1, 2, 0).numpy()) for s in scenes), path, rate=10)
    assert count == 6 and frame_rate(path) == 10
    frames = list(frames_of(path))
    assert [frame.number for frame in frames] == list(range(6)) and {frame.path for frame in frames} == {path}
    model = stand_in()
    for i, (_, (boxes, _, _)) in enumerate(detect_frames(model, frames, batch_size=4)):
        assert boxes[0].tolist() == pytest.approx([8 * i, 16, 8 * i + 32, 48], abs=3)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"clip\.mp4 cannot be decoded"):
        list(frames_of(path))


@pytest.mark.parametrize("kind", ["mp4", "avi"])
def test_a_video_that_ends_early(tmp_path: Path, kind: str) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / f"clip.{kind}"
    noise = np.random.default_rng(0)
    options = {"movflags": "faststart"} if kind == "mp4" else {}  # the header of an MP4 file before its frames
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(30):
            picture = noise.integers(0, 256, (64, 96, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    assert len(list(frames_of(path))) == 30
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"clip\.{kind} ends early: \d+ frames of 30 .*Copy it again.*skip"):
        list(frames_of(path))
    with pytest.warns(BadImageWarning, match="ends early"):
        kept = list(frames_of(path, on_bad_image="skip"))
    assert 5 < len(kept) < 25


def test_video_without_pyav_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(ImportError, match=r"poise\[video\]"):
        list(frames_of(tmp_path / "clip.mp4"))
