"""Preprocess images for a network: resize, normalize, pad (spec: shared image preparation)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import get_worker_info

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing of a model. Images are RGB, (3,H,W), uint8 or float in [0,1]."""

    mean: tuple[float, float, float] = IMAGENET_MEAN  # 0..255, in the channel order of the network's input
    std: tuple[float, float, float] = IMAGENET_STD
    bgr: bool = False  # channel order of the network's input
    short: int = 800  # size of the shorter side …
    long: int = 1333  # … unless the longer side would exceed this
    divisor: int = 32  # inputs are padded to multiples of this
    keep_ratio: bool = True  # False: every image becomes ``short`` high and ``long`` wide
    corner_aligned: bool = False  # resize as a warp about the corner (NanoDet) instead of with half-pixel centers

    def __post_init__(self) -> None:
        if min(self.short, self.long) < 1 or (self.short > self.long and self.keep_ratio):
            raise ValueError(
                f"image size short={self.short}, long={self.long}: both must be positive and short <= long"
            )
        if self.divisor < 1 or min(self.std) <= 0:
            raise ValueError(f"divisor={self.divisor} and std={self.std} must be positive")

    def with_size(self, size: int | Sequence[int]) -> Preprocess:
        """Return the preprocessing with another image size: one limit of both sides, or (short, long)."""
        if isinstance(size, int):
            return replace(self, short=size, long=size)
        if len(size) != 2:
            raise ValueError(f"image_size={tuple(size)}: give one number or (short, long)")
        first, second = (int(value) for value in size)
        if not self.keep_ratio:
            return replace(self, short=first, long=second)
        return replace(self, short=min(first, second), long=max(first, second))

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of an image after resizing."""
        if not self.keep_ratio:
            return self.short, self.long
        factor = min(self.long / max(height, width), self.short / min(height, width))
        return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the network's input for a single image: resized and padded."""
        return self.padded_size(*self.target_size(height, width))

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Round height and width up to multiples of ``divisor``."""
        return -(-height // self.divisor) * self.divisor, -(-width // self.divisor) * self.divisor

    def resize(self, image: Tensor) -> Tensor:
        """Resize bilinearly without antialiasing, with half-pixel centers by default, as the published models use."""
        height, width = image.shape[-2:]
        target = self.target_size(height, width)
        if target == (height, width):
            return image
        if self.corner_aligned:
            return corner_aligned_resize(image, target)
        resized = functional.interpolate(image[None].float(), size=target, mode="bilinear", align_corners=False)[0]
        return resized if image.is_floating_point() else resized.round_().to(image.dtype)

    def normalize(self, image: Tensor) -> Tensor:
        """Normalize an RGB image (…,3,H,W), uint8 or float in [0,1], to float32."""
        values = image.float() if image.dtype == torch.uint8 else image.float() * 255
        if self.bgr:
            values = values.flip(-3)
        mean = torch.tensor(self.mean, device=values.device).reshape(3, 1, 1)
        std = torch.tensor(self.std, device=values.device).reshape(3, 1, 1)
        return (values - mean) / std

    def batch(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Pad normalized images with zeros at the bottom and right to a common multiple of ``divisor``.

        Returns:
            pixels (B,3,H,W) float32 and sizes (B,2) float32, height and width before padding.
        """
        height, width = self._common_size(images)
        pixels = images[0].new_zeros(len(images), 3, height, width, dtype=torch.float32)
        for canvas, image in zip(pixels, images, strict=True):
            canvas[:, : image.shape[-2], : image.shape[-1]] = image
        sizes = torch.tensor([image.shape[-2:] for image in images], dtype=torch.float32)
        return pixels, sizes.to(pixels.device)

    def normalized_batch(self, images: Sequence[Tensor]) -> Tensor:
        """Normalize uint8 RGB images on the CPU and pad them as :meth:`batch` does, in one tensor and without copies.

        In a worker of a data loader, the tensor lies in shared memory from the start.

        Returns:
            pixels (B,3,H,W) float32.
        """
        mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (self.mean, self.std))
        pixels = _empty_to_send((len(images), 3, *self._common_size(images)))
        for canvas, image in zip(pixels, images, strict=True):
            height, width = image.shape[-2:]
            canvas[:, :height, :width].copy_(image.flip(-3) if self.bgr else image).sub_(mean).div_(std)
            canvas[:, height:].zero_()
            canvas[:, :height, width:].zero_()
        return pixels

    def _common_size(self, images: Sequence[Tensor]) -> tuple[int, int]:
        return self.padded_size(*(max(image.shape[side] for image in images) for side in (-2, -1)))


def _empty_to_send(shape: tuple[int, ...]) -> Tensor:
    """A float32 tensor to fill, in shared memory where a worker of a data loader makes it."""
    if get_worker_info() is None:
        return torch.empty(shape)
    storage = torch.UntypedStorage._new_shared(4 * math.prod(shape))
    shared: Tensor = torch.empty(0).set_(storage, 0, shape)  # type: ignore[call-overload]
    return shared


def batches_by_shape(shapes: Iterable[Hashable], max_size: int) -> list[list[int]]:
    """Group the indices of equal ``shapes`` into batches of at most ``max_size``.

    Predictions at the border of an image depend on its padding. In a batch of one shape they are the same as for the
    image alone.
    """
    indices: dict[Hashable, list[int]] = {}
    for i, shape in enumerate(shapes):
        indices.setdefault(shape, []).append(i)
    return [same[start : start + max_size] for same in indices.values() for start in range(0, len(same), max_size)]


def corner_aligned_resize(image: Tensor, target: tuple[int, int]) -> Tensor:
    """Resize (3,H,W) like a perspective warp: target pixel x is source x * W / W', black beyond the border."""
    rows, columns = (
        torch.arange(wanted, dtype=torch.float64, device=image.device) * (length / wanted)
        for length, wanted in zip(image.shape[-2:], target, strict=True)
    )
    return sample_separably(image, rows, columns)


def sample_separably(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Sample (C,H,W) bilinearly at source positions ``rows`` (h,) and ``columns`` (w,) in pixels, black outside.

    Positions are rounded to 1/32 of a pixel, as OpenCV's warps do; bytes are then interpolated exactly, halves up.
    """
    (top, bottom, down), (left, right, over) = (
        _neighbors(positions, length) for positions, length in zip((rows, columns), image.shape[-2:], strict=True)
    )
    edged = functional.pad(image.float() if image.is_floating_point() else image, (1, 1, 1, 1))
    if image.is_floating_point():
        exact = edged[:, top] * (32 - down[:, None]) + edged[:, bottom] * down[:, None]
        return ((exact[..., left] * (32 - over) + exact[..., right] * over) / 1024).to(image.dtype)
    lines = _between(edged, (top, bottom, down), torch.int16)  # at most 32 * 255
    turned = _between(lines.transpose(1, 2).contiguous(), (left, right, over), torch.int32)  # rows are copied faster
    return turned.add_(512).bitwise_right_shift_(10).to(image.dtype).transpose(1, 2).contiguous()


def _between(image: Tensor, neighbors: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype) -> Tensor:
    """Return 32 times the interpolated rows of integers (C,H,W), as ``dtype``."""
    before, after, fraction = neighbors
    first, second = (image.index_select(1, rows).to(dtype) for rows in (before, after))
    second.sub_(first).mul_(fraction.to(dtype)[:, None])
    return first.mul_(32).add_(second)


def _neighbors(positions: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return indices before and after each position, on an axis padded by one pixel, and the fraction in 1/32."""
    fine = (positions * 32).round().clamp(-64, 32 * (length + 1)).int()
    before = (fine >> 5) + 1
    return before.clamp(0, length + 1), (before + 1).clamp(0, length + 1), fine & 31


CAFFE = Preprocess((103.53, 116.28, 123.675), (1.0, 1.0, 1.0), bgr=True)  # of detectors on Caffe's ResNets
NANODET = Preprocess(  # of NanoDet: stretched to a square, BGR
    (103.53, 116.28, 123.675),
    (57.375, 57.12, 58.395),
    bgr=True,
    short=320,
    long=320,
    keep_ratio=False,
    corner_aligned=True,
)


def to_original(boxes: Tensor, size: Tensor, height: float, width: float) -> Tensor:
    """Scale boxes (n,4) xyxy from the network's input to pixels of the original image, and clip them to it.

    Args:
        size: (2,) height and width of the image in the network's input. Width and height are scaled separately, since
            resizing rounds each to whole pixels.
    """
    extent = boxes.new_tensor([width, height, width, height])
    scaled = boxes * (extent / size.to(boxes).flip(0).repeat(2))
    return torch.minimum(scaled.clamp(min=0), extent)
