"""Video files and cameras in, video files out, through PyAV (an extra: ``pip install "poise[video]"``)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from poise.suggestions import plural

if TYPE_CHECKING:
    from av import VideoFrame

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ts", ".flv")

SPARE_FRAMES = 2  # that a sound file may lack of what its header counts (edit lists)

Made = TypeVar("Made")


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ImportError('videos and cameras need PyAV: pip install "poise[video]"') from error
    return av


class DamagedVideo(ValueError):
    """A video that cannot be read, or not to its end."""


def read_video(path: str | os.PathLike[str], make: Callable[[Tensor, Path, int], Made]) -> Iterator[Made]:
    """``make(image (3,H,W) uint8 RGB, path, number)`` of every frame, decoded one at a time.

    A rotation in the file's header, as phones write it, is applied.

    Raises:
        ImportError: PyAV is not installed.
        DamagedVideo: the file is no video, or ends before the last frame that it promises; it is named.
    """
    av = _av()
    path, count, promised = Path(path), 0, 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DamagedVideo(f"{path} has no video stream")
            promised = container.streams.video[0].frames  # 0 where the format does not state it
            for number, frame in enumerate(container.decode(video=0)):
                count = number + 1
                yield make(_upright(frame), path, number)
    except av.FFmpegError as error:
        if not count:
            raise DamagedVideo(
                f"{path} cannot be decoded as a video: {error}. Copy it again, or convert it (ffmpeg -i IN OUT.mp4)"
            ) from error
        raise _ends_early(path, count, promised) from error
    if promised - count > max(SPARE_FRAMES, promised // 100):
        raise _ends_early(path, count, promised)


def _upright(frame: VideoFrame) -> Tensor:
    """A frame as (3,H,W) uint8 RGB; its ``rotation`` is in degrees counterclockwise, in steps of 90."""
    image = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
    return torch.rot90(image, round(frame.rotation / 90) % 4, (1, 2)).contiguous()


def open_camera(number: int) -> Iterator[Tensor]:
    """Frames (3,H,W) uint8 RGB of a camera of this computer, the first being 0, until the iterator is closed.

    Raises:
        ImportError: PyAV is not installed.
        ValueError: there is no such camera.
    """
    av = _av()
    device = {"darwin": str(number), "win32": f"video={number}"}.get(sys.platform, f"/dev/video{number}")
    kind = {"darwin": "avfoundation", "win32": "dshow"}.get(sys.platform, "v4l2")
    try:
        with av.open(device, format=kind) as container:
            for frame in container.decode(video=0):
                yield _upright(frame)
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"camera {number} ({device}) cannot be read: {error}") from error


def _ends_early(path: Path, count: int, promised: int) -> DamagedVideo:
    whole = f" of {promised}" if promised else ""
    return DamagedVideo(
        f"{path} ends early: {plural(count, 'frame')}{whole} could be decoded. Copy it again, or take what is there "
        "(--on-bad-image skip; on_bad_image='skip')"
    )


def frame_rate(path: str | os.PathLike[str]) -> Fraction:
    """Frames a second of a video file (25 where the file does not state it)."""
    with _av().open(str(path)) as container:
        return Fraction(container.streams.video[0].average_rate or 25)


def write_video(pictures: Iterable[Image.Image], path: str | os.PathLike[str], rate: Fraction | float = 25) -> int:
    """Write pictures of one size as an H.264 or, where PyAV lacks it, MPEG-4 video.

    Odd sides lose their last row or column (the format wants even ones).

    Returns:
        the number of frames written.
    """
    av = _av()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    count, stream = 0, None
    with av.open(str(path), "w") as container:
        for picture in pictures:
            count += 1
            even = picture.width // 2 * 2, picture.height // 2 * 2
            if stream is None:
                stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
                stream.width, stream.height, stream.pix_fmt = *even, "yuv420p"
            frame = av.VideoFrame.from_image(picture.convert("RGB").crop((0, 0, *even)))
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode())
    return count
