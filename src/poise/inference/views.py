"""Test-time augmentation: an image in several sizes and mirrored, and what is found in all of them merged.

    TestTimeAugmentation(scales=(0.75, 1.0, 1.5), flip=True, merge="soft_nms")
    TestTimeAugmentation.parse("0.75,1,1.5,flip,soft_nms")  # the same, as the command line writes it

Detections of all views, in pixels of one of them, go through class-wise NMS (or linear soft-NMS: Bodla et al. 2017)
together, and the best are kept, as many as the model gives of one view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from poise.postprocess import classwise_nms, soft_nms
from poise.preprocess import Preprocess
from poise.protocols import Detector
from poise.structures import Detections

MIN_SCORE = 1e-3  # scores that soft-NMS drops


@dataclass(frozen=True)
class TestTimeAugmentation:
    """Which views of an image are looked at, and how their detections become one list."""

    __test__ = False  # no test class, whatever its name begins with

    scales: tuple[float, ...] = (1.0,)  # sizes of the views, times the model's own
    flip: bool = True  # each also mirrored left to right
    merge: Literal["nms", "soft_nms"] = "nms"
    overlap: float = 0.6  # IoU from which a lower-scored box of a class is dropped, or (soft) loses score
    max_detections: int | None = None  # detections an image; None: as many as the model gives

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale <= 8 for scale in self.scales):
            raise ValueError(f"tta: scales {self.scales} must lie in (0, 8], at least one")
        if self.merge not in ("nms", "soft_nms"):
            raise ValueError(f"tta: merge '{self.merge}' must be nms or soft_nms")
        if not 0 < self.overlap <= 1 or (self.max_detections is not None and self.max_detections < 1):
            raise ValueError(
                f"tta: overlap {self.overlap} must lie in (0, 1], max_detections {self.max_detections} be at least 1"
            )

    @staticmethod
    def parse(text: str) -> TestTimeAugmentation:
        """From words with commas between: factors of the model's image size, ``flip``, ``nms``, ``soft_nms``.

        Raises:
            ValueError: an unknown word.
        """
        words = [word.strip() for word in text.split(",") if word.strip()]
        kinds = [word for word in words if word in ("nms", "soft_nms")]
        numbers = [word for word in words if word not in ("flip", "nms", "soft_nms")]
        try:
            scales = tuple(float(word) for word in numbers)
        except ValueError:
            known = "factors of the image size (0.75,1,1.5), flip, nms or soft_nms, with commas between"
            raise ValueError(f"tta='{text}': it is made of {known}") from None
        return TestTimeAugmentation(scales or (1.0,), "flip" in words, kinds[-1] if kinds else "nms")  # type: ignore[arg-type]

    def sizes(self, preprocess: Preprocess) -> list[Preprocess]:
        """How each scale wants its images."""
        sides = [(max(1, round(preprocess.short * s)), max(1, round(preprocess.long * s))) for s in self.scales]
        return [replace(preprocess, short=short, long=long) for short, long in sides]


def wanted_views(settings: str | TestTimeAugmentation) -> TestTimeAugmentation:
    """Settings that may be given in words."""
    return TestTimeAugmentation.parse(settings) if isinstance(settings, str) else settings


@torch.no_grad()
def detect_views(
    network: Detector, views: Sequence[tuple[Tensor, Tensor]], settings: TestTimeAugmentation
) -> Detections:
    """Merged detections in pixels of the first view.

    Args:
        network: ``network.predict(pixels, sizes) -> Detections``.
        views: pixels (B,3,H,W) and sizes (B,2) of each scale.
    """
    found: list[Detections] = []
    extent = views[0][1]
    for pixels, sizes in views:
        found.append(resized(network.predict(pixels, sizes), sizes, extent))
        if settings.flip:
            mirrored = flipped(network.predict(flip_inside(pixels, sizes), sizes), sizes)
            found.append(resized(mirrored, sizes, extent))
    return merged(found, settings)


def flip_inside(pixels: Tensor, sizes: Tensor) -> Tensor:
    """Images mirrored left to right within their own size, the padding staying at right and bottom."""
    result = pixels.clone()
    for image, own, (_, width) in zip(result, pixels, sizes.long().tolist(), strict=True):
        image[..., :width] = own[..., :width].flip(-1)
    return result


def flipped(found: Detections, sizes: Tensor) -> Detections:
    """Boxes of mirrored images (B,2 high and wide) where they are in the images themselves."""
    x1, y1, x2, y2 = found.boxes.unbind(-1)
    width = sizes[:, 1:].to(found.boxes)
    return replace(found, boxes=torch.stack((width - x2, y1, width - x1, y2), -1))


def resized(found: Detections, sizes: Tensor, wanted: Tensor) -> Detections:
    """Boxes of images of ``sizes`` (B,2) in pixels of the same images of the size ``wanted`` (B,2)."""
    factor = (wanted / sizes).flip(1).repeat(1, 2).to(found.boxes)
    return replace(found, boxes=found.boxes * factor[:, None])


def merged(found: Sequence[Detections], settings: TestTimeAugmentation) -> Detections:
    """One list of the detections (B,K_v) of several views, best first."""
    boxes, scores, labels, valid = (
        torch.cat([getattr(one, name) for one in found], 1) for name in ("boxes", "scores", "labels", "valid")
    )
    limit = settings.max_detections or max(one.boxes.shape[1] for one in found)
    if settings.merge == "nms":
        return classwise_nms(
            boxes.float(), scores.float(), labels, valid, threshold=settings.overlap, max_detections=limit
        )
    together = Detections(boxes.float(), scores.float(), labels, valid)
    softened, index = soft_nms(together, settings.overlap, MIN_SCORE, limit)
    chosen = boxes.float().gather(1, index[..., None].expand(-1, -1, 4))
    return Detections(chosen, softened.clamp(min=0), labels.gather(1, index), softened > 0)
