"""What can be predicted on: files, folders, globs, videos, arrays, tensors, and any iterable of these."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from poise.data.images import SUFFIXES, read_image
from poise.inference.video import VIDEO_SUFFIXES, DamagedVideo, read_video

Source: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any] | Tensor | Iterable[Any]"
OnBadImage: TypeAlias = Literal["error", "skip"]


class BadImageWarning(UserWarning):
    """An image was left out because it could not be read."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One image to predict on."""

    image: Tensor  # (3,H,W) RGB, uint8 or float in [0,1]
    path: Path | None = None  # its file, or the video that it is of
    number: int | None = None  # from 0 within a video


def frames_of(source: Source, on_bad_image: OnBadImage = "error") -> Iterator[Frame]:
    """The images of a source, one after the other; nothing is read before it is asked for.

    Args:
        source: the path of an image, a folder (its images by name, not those of folders within), a glob pattern
            (``**`` for folders within), a video; a PIL image; an (H,W,3), (H,W,4), (H,W,1) or (H,W) uint8 array in RGB
            order; a (3,H,W), (1,H,W) or (B,3,H,W) tensor, uint8 or float in [0,1]; or an iterable of such.
        on_bad_image: ``"skip"`` leaves unreadable files of a folder, glob or iterable out, and what a video lacks at
            its end, with a ``BadImageWarning``.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: not an image, or one of another shape or type.
    """
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f"on_bad_image={on_bad_image!r} must be 'error' or 'skip'")
    if isinstance(source, (str, os.PathLike)):
        yield from _files(Path(source), on_bad_image)
    elif isinstance(source, Tensor) and source.ndim == 4:
        yield from (Frame(as_image(image)) for image in source)
    elif isinstance(source, (Image.Image, np.ndarray, Tensor)):
        yield Frame(as_image(source))
    elif isinstance(source, Iterable):
        for item in source:
            yield from _item(item, on_bad_image)
    else:
        raise ValueError(
            f"cannot predict on a {type(source).__name__}; give a path, an image, an array or a list of these"
        )


def is_video(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def as_image(image: Image.Image | np.ndarray[Any, Any] | Tensor) -> Tensor:
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


def _of_array(array: np.ndarray[Any, Any]) -> Tensor:
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


def _files(path: Path, on_bad_image: OnBadImage) -> Iterator[Frame]:
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in SUFFIXES and file.is_file()]
        if not files:
            raise FileNotFoundError(f"no image in {path}; looked for {', '.join(sorted(SUFFIXES))}")
    elif path.exists():
        yield from _video(path, on_bad_image) if is_video(path) else [Frame(read_image(path), path)]
        return
    else:
        files = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if not os.path.isdir(name)]
        if not files:
            raise FileNotFoundError(f"nothing at {path}: no file, folder or match of a pattern")
    for file in files:
        yield from _item(file, on_bad_image)


def _video(path: Path, on_bad_image: OnBadImage) -> Iterator[Frame]:
    """The frames of a video; where it is damaged and that may be, those up to there."""
    try:
        yield from read_video(path, Frame)
    except DamagedVideo as error:
        if on_bad_image == "error":
            raise
        warnings.warn(f"left out from there on: {error}", BadImageWarning, stacklevel=2)


def _item(item: Any, on_bad_image: OnBadImage) -> Iterator[Frame]:
    """One of several: a file that cannot be read may be left out."""
    if not isinstance(item, (str, os.PathLike)) or Path(item).is_dir() or is_video(item):
        yield from frames_of(item, on_bad_image)
        return
    try:
        frames = (
            list(frames_of(item, on_bad_image))
            if not Path(item).exists()
            else [Frame(read_image(Path(item)), Path(item))]
        )
    except (ValueError, OSError) as error:
        if on_bad_image == "error":
            raise
        warnings.warn(f"left out: {error}", BadImageWarning, stacklevel=2)
        return
    yield from frames
