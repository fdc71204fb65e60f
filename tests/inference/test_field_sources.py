"""What users give to ``predict``: bytes, open files, folders with brackets, cameras, turned videos, huge scenes."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from inference.stand_in import scene, stand_in
from PIL import Image

import poise.inference.sources as sources
from poise import Detector
from poise.cli import main
from poise.data.errors import BadImage
from poise.inference import detect_frames, frames_of, write_video
from poise.models import create_model
from poise.models.files import save_model

SCENE = scene(60, 90, [(10, 20, 40, 50, 0)])
BOX = [[10, 20, 40, 50]]


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(SCENE.permute(1, 2, 0).numpy()).save(path)
    return path


def boxes_of(source: object, **settings: object) -> list[list[int]]:
    found = [one for _, one in detect_frames(stand_in(), frames_of(source, **settings))]
    return [[round(v) for v in box] for boxes, _, _ in found for box in boxes.tolist()]


def test_bytes_and_open_files(tmp_path: Path) -> None:
    content = picture(tmp_path / "a.png").read_bytes()
    with (tmp_path / "a.png").open("rb") as file:
        assert boxes_of(file) == BOX
    for source in (content, bytearray(content), memoryview(content), io.BytesIO(content), [content]):
        assert boxes_of(source) == BOX
    with pytest.raises(BadImage, match=r"bytes: not one of JPEG"):
        boxes_of(b"no image")
    with pytest.raises(BadImage, match=r"0 bytes"):
        boxes_of(io.BytesIO())
    with (tmp_path / "a.txt").open("w+") as file, pytest.raises(ValueError, match=r"a\.txt: holds text"):
        boxes_of(file)


def test_folders_with_brackets(tmp_path: Path) -> None:
    folder = tmp_path / "photos [1]*"
    picture(folder / "a[2].png")
    for source in (
        folder,
        folder / "a[2].png",
        folder / "*.png",
        str(tmp_path / "**" / "*.png"),
        folder / "?[[]2].png",
    ):
        assert boxes_of(source) == BOX
    picture(tmp_path / "set1" / "b.png")
    assert boxes_of(str(tmp_path / "set[12]" / "*.png")) == BOX


@pytest.mark.parametrize("url", ["https://host.example/a.jpg", "rtsp://camera.example/stream", "s3://bucket/a.png"])
def test_urls_are_refused_with_what_to_do(url: str) -> None:
    for source in (url, Path(url), [url]):
        with pytest.raises(ValueError, match=r"is a URL, and nothing is downloaded; fetch it first"):
            boxes_of(source)


def test_pictures_of_other_formats_and_hidden_files(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"\0\5\x16\7")
    assert boxes_of(tmp_path) == boxes_of(tmp_path / "*.png") == BOX
    (tmp_path / "b.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(BadImage, match=r"b\.heic: not one of JPEG, PNG.* convert it"):
        boxes_of(tmp_path)
    with pytest.warns(sources.BadImageWarning, match=r"b\.heic"):
        assert boxes_of(tmp_path, on_bad_image="skip") == BOX


def test_scenes_above_the_limit_of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # the scene has 5,400: more than twice as many
    path = picture(tmp_path / "a.png")
    model = create_model("atss_r18_fpn", 2, image_size=32, backbone="test_byobnet", channels=8, depth=1)
    save_model(model, tmp_path / "model.pt")
    words = ["predict", str(tmp_path / "model.pt"), str(path), "--device", "cpu", "--out", str(tmp_path / "out")]
    with pytest.raises(BadImage, match=r"--max-pixels N") as caught:
        boxes_of(path, max_pixels=3000)
    assert "90x60 pixels are more than the limit of 3000" in str(caught.value)
    assert main([*words, "--tile", "64", "--max-pixels", "3000"]) == 1
    assert boxes_of(path, max_pixels=6000) == boxes_of([path], max_pixels=6000) == BOX
    assert boxes_of(path.read_bytes(), max_pixels=6000) == BOX
    assert main([*words, "--tile", "64", "--max-pixels", "6000"]) == 0
    assert len(Detector(model, "cpu").predict(path, tile=64, max_pixels=6000)) == 1
    assert Image.MAX_IMAGE_PIXELS == 2000
    with pytest.raises(ValueError, match="max_pixels=0"):
        boxes_of(path, max_pixels=0)


def camera(number: int) -> Iterator[torch.Tensor]:
    yield from [SCENE] * (3 + number)


def test_cameras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "open_camera", camera)
    monkeypatch.chdir(tmp_path)
    assert boxes_of(0) == boxes_of("0") == BOX * 3 and boxes_of(1) == BOX * 4
    frames = list(frames_of(0))
    assert [frame.number for frame in frames] == [0, 1, 2] and str(frames[0].path) == "camera-0"
    with pytest.raises(ValueError, match="numbered from 0"):
        boxes_of(-1)
    picture(tmp_path / "0.png").rename(tmp_path / "0")
    assert boxes_of("0") == BOX  # a file of that name


def test_a_camera_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")

    def interrupted(number: int) -> Iterator[torch.Tensor]:
        yield from camera(number)
        raise KeyboardInterrupt

    monkeypatch.setattr(sources, "open_camera", interrupted)
    monkeypatch.chdir(tmp_path)
    model = create_model("atss_r18_fpn", 2, image_size=32, backbone="test_byobnet", channels=8, depth=1)
    save_model(model, tmp_path / "model.pt")
    assert main(["predict", "model.pt", "0", "--out", "out", "--device", "cpu", "--batch-size", "1"]) == 0
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())) == 3
    assert len(list(frames_of(tmp_path / "out" / "camera-0.mp4"))) == 3


def turn_header(path: Path, degrees: int) -> None:
    """Write a clockwise turn into the track header of an MP4 file, as phones do."""
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    one, content = 1 << 16, bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # after version, flags, times, id, duration, layer, group and volume
    content[start : start + 36] = struct.pack(">9i", cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_videos_that_are_turned_in_their_header(tmp_path: Path, degrees: int) -> None:
    pytest.importorskip("av")
    upright = scene(64, 96, [(16, 8, 64, 40, 0)])
    stored = torch.rot90(upright, degrees // 90, (1, 2))  # counterclockwise; the header turns it back
    path = tmp_path / "clip.mp4"
    write_video([Image.fromarray(np.ascontiguousarray(stored.permute(1, 2, 0).numpy()))] * 2, path)
    turn_header(path, degrees)
    frames = list(frames_of(path))
    assert [tuple(frame.image.shape) for frame in frames] == [(3, 64, 96)] * 2
    for box in boxes_of(path):
        assert box == pytest.approx([16, 8, 64, 40], abs=3)
    assert len(boxes_of(path)) == 2
