"""Reading image files: an allow-list of formats, a limit of pixels, one policy for EXIF orientation.

EXIF orientation: a file may store its pixels turned and say so in its header. Annotations are drawn on one of the two
forms. Where the annotated size equals the size *after* the orientation is applied, or no size is annotated (YOLO), it
is applied; where it equals only the stored size, it is not; where it equals neither, the image is refused.
"""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from poise.data.errors import BadImage
from poise.data.members import inside_tar, read_member

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff"})
UNSUPPORTED = frozenset(
    {".heic", ".heif", ".avif", ".gif", ".jp2", ".j2k", ".jxl", ".dng", ".cr2", ".nef", ".arw", ".psd", ".tga", ".ppm"}
)
"""Suffixes of pictures that are not read; such a file is reported rather than passed over."""
MAX_PIXELS = 89_478_485  # Pillow's own limit, above which it warns of a decompression bomb
DARKEST = 15  # of 255: what the upper 8 of 16 bits hold where only 12 are used
ORIENTATION = 0x0112  # the EXIF tag
TURNED = frozenset({5, 6, 7, 8})  # orientations that exchange width and height
_PNG_EXIF = {"exif", "Raw profile type exif", "xmp"}  # what an orientation before the pixels is found under
_SMALLER = "make it smaller or cut it up; poise predict --max-pixels N (max_pixels) raises the limit for predictions"
_PILLOW = threading.RLock()
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"RIFF", b"II*\0", b"MM\0*")
_DECODING = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)


def image_size(path: Path | str) -> tuple[int, int]:
    """Width and height in pixels, EXIF orientation applied, read from the header only.

    Raises:
        BadImage: the file is missing, empty, of another format or has no readable header.
    """
    with _open(Path(path), None) as image:
        return _sizes(image, Path(path))[1]


def read_image(
    path: Path | str, annotated_size: tuple[int, int] | None = None, *, max_pixels: int | None = MAX_PIXELS
) -> Tensor:
    """The first frame of an image file as a (3,H,W) uint8 RGB tensor.

    Grey images are repeated, palettes looked up, CMYK converted, alpha left out and 16 bits a channel reduced to the
    upper 8.

    Args:
        path: a JPEG, PNG, BMP, WEBP or TIFF file.
        annotated_size: width and height that the annotations are drawn on; decides whether the EXIF orientation is
            applied (see the module's text). ``None``: it is applied.
        max_pixels: refuse larger images; ``None``: only beyond Pillow's own hard limit, twice ``MAX_PIXELS``.

    Raises:
        BadImage: the file cannot be used; the message names file, reason and cure.
    """
    import torch

    pixels = read_pixels(path, annotated_size, max_pixels=max_pixels)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def decode_image(content: bytes, name: str = "bytes", *, max_pixels: int | None = MAX_PIXELS) -> Tensor:
    """As :func:`read_image`, of the content of a file; ``name`` is for messages."""
    import torch

    if not isinstance(content, bytes):
        raise ValueError(f"{name}: holds text, not the bytes of an image; open it in binary mode")
    pixels = _pixels(Path(name), content, None, max_pixels)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def read_pixels(
    path: Path | str, annotated_size: tuple[int, int] | None = None, *, max_pixels: int | None = MAX_PIXELS
) -> np.ndarray:
    """As :func:`read_image`, but a (H,W,3) array."""
    return _pixels(Path(path), None, annotated_size, max_pixels)


def _pixels(
    path: Path, content: bytes | None, annotated_size: tuple[int, int] | None, max_pixels: int | None
) -> np.ndarray:
    with _open(path, max_pixels, content) as image:
        stored, shown = _sizes(image, path)
        apply = _applies_orientation(path, stored, shown, annotated_size)
        try:
            image.load()
            upright = ImageOps.exif_transpose(image) if apply and _orientation(image, path) != 1 else image
            return _rgb(upright, path)
        except BadImage:
            raise
        except _DECODING as error:
            raise _undecodable(path, error) from error


def orientation(path: Path | str) -> int:
    """EXIF orientation 1..8 of a file; 1 (upright) where none is stated."""
    with _open(Path(path), None) as image:
        return _orientation(image, Path(path))


def image_bytes(path: Path) -> bytes:
    """The bytes of an image file, be it a file of its own or a record of a tar shard.

    Raises:
        BadImage: it is missing or cannot be read.
    """
    member = inside_tar(path)
    if member is not None:
        return read_member(*member)
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(path) from error
    except OSError as error:
        raise _undecodable(path, error) from error


def _open(path: Path, max_pixels: int | None, content: bytes | None = None) -> Image.Image:
    """The image of a file, of a record of a shard, or of ``content``, which was read elsewhere."""
    member = inside_tar(path) if content is None else None
    content = content if member is None else read_member(*member)
    try:
        empty = path.stat().st_size == 0 if content is None else not content
        source = path if content is None else io.BytesIO(content)
        with _own_limit(max_pixels):
            image = None if empty else Image.open(source, formats=FORMATS)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(path) from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error)) from error
    except UnidentifiedImageError as error:
        raise _unidentified(path, content) from error
    except _DECODING as error:
        raise _undecodable(path, error) from error
    if image is None:
        raise BadImage(path, "image-empty", "the file has 0 bytes", "copy it again or remove its record")
    width, height = image.size
    if max_pixels is not None and width * height > max_pixels:
        image.close()
        raise _too_large(path, f"{width}x{height} pixels are more than the limit of {max_pixels}")
    return image


@contextmanager
def _own_limit(max_pixels: int | None) -> Iterator[None]:
    """Let ``max_pixels`` decide, where it is given, instead of Pillow's limit, which holds for the whole process."""
    with _PILLOW:
        before = Image.MAX_IMAGE_PIXELS
        if max_pixels is not None:
            Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _missing(path: Path) -> BadImage:
    return BadImage(path, "image-missing", "the file does not exist", "correct the path or remove its record")


def _too_large(path: Path, why: str) -> BadImage:
    return BadImage(path, "image-too-large", why, _SMALLER)


def _unidentified(path: Path, content: bytes | None) -> BadImage:
    if content is None:
        with path.open("rb") as file:
            content = file.read(4)
    if content.startswith(_MAGIC):
        return BadImage(path, "image-unreadable", "the header is damaged", "copy it again or remove its record")
    formats = ", ".join(FORMATS)
    return BadImage(path, "image-unsupported", f"not one of {formats}", "convert it to PNG or JPEG")


def _undecodable(path: Path, error: BaseException) -> BadImage:
    text = str(error) or type(error).__name__
    truncated = any(
        word in text.lower() for word in ("truncated", "premature", "unexpected end", "not enough", "incomplete")
    )
    kind = "image-truncated" if truncated else "image-unreadable"
    return BadImage(path, kind, f"cannot be decoded ({text})", "copy it again or remove its record")


def _orientation(image: Image.Image, path: Path) -> int:
    if image.format == "PNG" and not _PNG_EXIF & image.info.keys():
        return 1  # Pillow would decode the whole file to look behind the pixels
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except _DECODING as error:
        raise _undecodable(path, error) from error
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _sizes(image: Image.Image, path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """Width and height as stored, and as shown after EXIF orientation."""
    width, height = image.size
    return (width, height), (height, width) if _orientation(image, path) in TURNED else (width, height)


def _applies_orientation(
    path: Path, stored: tuple[int, int], shown: tuple[int, int], annotated: tuple[int, int] | None
) -> bool:
    if annotated is None or tuple(annotated) == shown:
        return True
    if tuple(annotated) == stored:
        return False
    raise size_difference(path, shown, annotated)


def size_difference(path: Path, shown: tuple[int, int], annotated: tuple[int, int]) -> BadImage:
    """The error for an image of another size than the annotations state."""
    why = f"is {shown[0]}x{shown[1]}, but annotated as {annotated[0]}x{annotated[1]} (width x height)"
    across, down = annotated[0] / shown[0], annotated[1] / shown[1]
    if abs(across / down - 1) < 0.02:  # sides are rounded when an image is resized
        why += f"; its boxes seem to be in pixels of a copy that was resized by {across:.3g}"
    return BadImage(path, "image-size-differs", why, "use the image that was annotated or correct the annotation")


def is_dark(path: Path | str, pixels: np.ndarray) -> bool:
    """Whether an image of 16 bits a channel, read as ``pixels``, uses only the lower 12 of them or fewer."""
    if not pixels.size or pixels.max() > DARKEST:
        return False
    with _open(Path(path), None) as image:
        if image.mode.startswith("I"):
            return bool(np.asarray(image).max() > 0)
        return bool(pixels.max() > 0) and any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _rgb(image: Image.Image, path: Path) -> np.ndarray:
    if image.mode.startswith("I;16") or image.mode == "I":
        return _from_deep_gray(np.asarray(image).astype(np.int64), path)
    if image.mode == "F":
        raise BadImage(path, "image-unsupported", "its pixels are floating-point", "convert it to 8 bits a channel")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # else Pillow warns of transparency given as bytes
    return np.asarray(image.convert("RGB"))


def _from_deep_gray(gray: np.ndarray, path: Path) -> np.ndarray:
    if gray.size and (gray.min() < 0 or gray.max() > 65535):
        raise BadImage(path, "image-unsupported", "its gray values exceed 16 bits", "convert it to 8 bits a channel")
    return np.repeat((gray >> 8).astype(np.uint8)[..., None], 3, axis=2)
