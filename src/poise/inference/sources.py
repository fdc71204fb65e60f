"""What can be predicted on: files, folders, globs, videos, cameras, bytes, arrays, tensors, iterables of these."""

from __future__ import annotations

import glob
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from poise.data.folders import is_junk
from poise.data.images import MAX_PIXELS, SUFFIXES, UNSUPPORTED, decode_image, read_image
from poise.inference.video import VIDEO_SUFFIXES, DamagedVideo, open_camera, read_video

Source: TypeAlias = "str | os.PathLike[str] | int | bytes | Image.Image | np.ndarray | Tensor | Iterable[object]"
OnBadImage: TypeAlias = Literal["error", "skip"]
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/{1,2}[^/]")  # ``Path`` makes one slash of two


class BadImageWarning(UserWarning):
    """An image was left out because it could not be read."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One image to predict on."""

    image: Tensor  # (3,H,W) RGB, uint8 or float in [0,1]
    path: Path | None = None  # its file, or the video that it is of
    number: int | None = None  # from 0 within a video


@dataclass(frozen=True)
class Reading:
    """How files are read."""

    on_bad_image: OnBadImage = "error"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.on_bad_image not in ("error", "skip"):
            raise ValueError(f"on_bad_image={self.on_bad_image!r} must be 'error' or 'skip'")
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels={self.max_pixels} must be at least 1")


def frames_of(source: Source, on_bad_image: OnBadImage = "error", max_pixels: int = MAX_PIXELS) -> Iterator[Frame]:
    """The images of a source, one after the other; nothing is read before it is needed.

    Args:
        source: the path of an image, a folder (its images by name, not those of folders within), a glob pattern
            (``**`` for folders within), a video; the number of a camera (``0``); the bytes of an image file, or an
            open file of it; a PIL image; an (H,W,3), (H,W,4), (H,W,1) or (H,W) uint8 array in RGB order; a (3,H,W),
            (1,H,W) or (B,3,H,W) tensor, uint8 or float in [0,1]; or an iterable of such.
        on_bad_image: ``"skip"`` leaves unreadable files of a folder, glob or iterable out, and what a video lacks at
            its end, with a ``BadImageWarning``.
        max_pixels: image files with more pixels are refused.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: not an image, or one of another shape or type.
    """
    yield from _frames(source, Reading(on_bad_image, max_pixels))


def _frames(source: Source, reading: Reading) -> Iterator[Frame]:
    if isinstance(source, (str, os.PathLike)):
        yield from _camera(int(str(source))) if is_camera(source) else _files(Path(_no_url(source)), reading)
    elif isinstance(source, Tensor) and source.ndim == 4:
        yield from (Frame(as_image(image)) for image in source)
    elif isinstance(source, (Image.Image, np.ndarray, Tensor)):
        yield Frame(as_image(source))
    elif isinstance(source, int) and not isinstance(source, bool):
        yield from _camera(source)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        yield Frame(decode_image(bytes(source), max_pixels=reading.max_pixels))
    elif callable(read := getattr(source, "read", None)):
        yield Frame(decode_image(read(), str(getattr(source, "name", "open file")), max_pixels=reading.max_pixels))
    elif isinstance(source, Iterable):
        for item in source:
            yield from _item(item, reading)
    else:
        raise ValueError(
            f"cannot predict on a {type(source).__name__}; give a path, an image, an array or a list of these"
        )


def is_camera(source: object) -> bool:
    """Whether a source is the number of a camera: an integer, or digits that are no file here."""
    if isinstance(source, int):
        return not isinstance(source, bool)
    return isinstance(source, str) and re.fullmatch(r"[0-9]{1,2}", source) is not None and not os.path.exists(source)


def _camera(number: int) -> Iterator[Frame]:
    if number < 0:
        raise ValueError(f"camera {number}: cameras are numbered from 0")
    yield from (Frame(image, Path(f"camera-{number}"), i) for i, image in enumerate(open_camera(number)))


def _no_url(source: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The source itself; ``ValueError`` for a URL."""
    text = os.fspath(source)
    if _URL.match(text) and not os.path.exists(text):
        raise ValueError(
            f"{text}: is a URL, and nothing is downloaded; fetch it first (curl -LO URL, for a stream "
            "ffmpeg -i URL -t 60 clip.mp4) and give the file"
        )
    return source


def is_video(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def as_image(image: Image.Image | np.ndarray | Tensor) -> Tensor:
    """A picture, array or tensor as (3,H,W): gray is repeated, transparency dropped, EXIF orientation applied.

    Raises:
        ValueError: another shape or type, or float values outside [0,1].
    """
    if isinstance(image, Image.Image):
        return _of_picture(image)
    return _of_array(image) if isinstance(image, np.ndarray) else _of_tensor(image)


def _of_picture(picture: Image.Image) -> Tensor:
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):  # 16 bits: the upper 8 are kept, as in files (Pillow alone would clip)
        upright = Image.fromarray((np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return torch.from_numpy(np.array(upright.convert("RGB"))).permute(2, 0, 1).contiguous()


def _of_array(array: np.ndarray) -> Tensor:
    if array.dtype != np.uint8:
        raise ValueError(
            f"an image array must be uint8, got {array.dtype}; a float image is passed as a (3,H,W) tensor"
        )
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ValueError(f"an image array is (H,W), (H,W,1), (H,W,3) RGB or (H,W,4) RGBA, got {array.shape}")
    channels = np.repeat(array, 3, 2) if array.shape[2] == 1 else array[:, :, :3]
    return torch.from_numpy(np.ascontiguousarray(channels.transpose(2, 0, 1)))


def _of_tensor(image: Tensor) -> Tensor:
    if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
        raise ValueError(f"an image tensor is (3,H,W) or (1,H,W), got {tuple(image.shape)}")
    if image.is_floating_point():
        low, high = image.min().item(), image.max().item()
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"a float image must lie in [0,1], got {low:.3g} to {high:.3g}; divide by 255 or pass uint8"
            )
    elif image.dtype != torch.uint8:
        raise ValueError(f"an image tensor must be uint8 or float, got {image.dtype}")
    return image.expand(3, -1, -1)


def _files(path: Path, reading: Reading) -> Iterator[Frame]:
    if path.is_dir():
        listed = sorted(file for file in path.iterdir() if not is_junk(file.name) and file.is_file())
        files = [file for file in listed if file.suffix.lower() in SUFFIXES | UNSUPPORTED]
        if not files:
            raise FileNotFoundError(f"no image in {path}; looked for {', '.join(sorted(SUFFIXES))}")
    elif path.exists():
        yield from _video(path, reading) if is_video(path) else [_image(path, reading)]
        return
    else:
        files = [file for file in _matches(path) if not file.is_dir() and not is_junk(file.name)]
        if not files:
            raise FileNotFoundError(f"nothing at {path}: no file, folder or match of a pattern")
    for file in files:
        yield from _item(file, reading)


def _matches(pattern: Path) -> list[Path]:
    """Files that match a pattern; folders at its beginning that exist are taken as they are, brackets included."""
    base = next(parent for parent in pattern.parents if parent == Path(".") or parent.exists())
    rest = str(pattern.relative_to(base))
    whole = rest if base == Path(".") else os.path.join(glob.escape(str(base)), rest)
    return [Path(name) for name in sorted(glob.glob(whole, recursive=True))]


def _image(path: Path, reading: Reading) -> Frame:
    return Frame(read_image(path, max_pixels=reading.max_pixels), path)


def _video(path: Path, reading: Reading) -> Iterator[Frame]:
    """The frames of a video; where it is damaged and that may be, those up to there."""
    try:
        yield from read_video(path, Frame)
    except DamagedVideo as error:
        if reading.on_bad_image == "error":
            raise
        warnings.warn(f"left out from there on: {error}", BadImageWarning, stacklevel=2)


def _item(item: Any, reading: Reading) -> Iterator[Frame]:
    """One of several: a file that cannot be read may be left out."""
    if not isinstance(item, (str, os.PathLike)) or Path(item).is_dir() or is_video(item):
        yield from _frames(item, reading)
        return
    try:
        frames = [_image(Path(item), reading)] if Path(item).exists() else list(_frames(item, reading))
    except (ValueError, OSError) as error:
        if reading.on_bad_image == "error":
            raise
        warnings.warn(f"left out: {error}", BadImageWarning, stacklevel=2)
        return
    yield from frames
