"""What happens to a training image, as settings; the room ``data`` carries it out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AugmentSettings:
    """Probabilities lie in [0,1]; 0 (or an empty range) switches a transform off."""

    flip: float = 0.5
    """Probability of a horizontal flip."""
    short_range: tuple[int, ...] = ()
    """(least, greatest) shorter side in pixels, drawn anew for every image, both ends included; empty: one size."""
    short_choices: tuple[int, ...] = ()
    """Shorter sides in pixels, one drawn for every image, as in the DETR family; instead of ``short_range``."""
    photometric: float = 0.0
    """Probability of a distortion of brightness, contrast, saturation and hue."""
    min_iou_crop: float = 0.0
    """Probability of a random crop that keeps a minimum overlap with the objects (SSD)."""
    scale_jitter: tuple[float, ...] = ()
    """(least, greatest) factor of large-scale jitter followed by a crop to the image size; empty: none."""
    warp_scale: tuple[float, ...] = ()
    """(least, greatest) factor of a warp about the image's centre onto the whole input (NanoDet); empty: no warp."""
    warp_stretch: tuple[float, ...] = ()
    """(least, greatest) further factor of each axis of the warp; empty: none."""
    warp_shift: float = 0.0
    """The warp moves the centre by up to this share of width and height."""
    recolor: float = 0.0
    """Probability of each of a shift of brightness, a factor of contrast and one of saturation (NanoDet)."""
    mosaic: float = 0.0
    """Probability that four images are joined to one."""
    mixup: float = 0.0
    """Probability that a second image is blended in."""
    copy_paste: float = 0.0
    """Probability that boxes of a second image are pasted in."""
    plain_epochs: int = 0
    """The last so many epochs go without mosaic, mixup and copy-paste."""

    def __post_init__(self) -> None:
        for name in ("flip", "photometric", "min_iou_crop", "warp_shift", "recolor", "mosaic", "mixup", "copy_paste"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augment.{name}={getattr(self, name)} must lie in [0, 1]")
        for name in ("short_range", "scale_jitter", "warp_scale", "warp_stretch"):
            values = getattr(self, name)
            if values and (len(values) != 2 or not 0 < values[0] <= values[1]):
                raise ValueError(f"augment.{name}={values} must be (least, greatest), positive, or empty")
        if (self.warp_stretch or self.warp_shift) and not self.warp_scale:
            raise ValueError("augment.warp_stretch and warp_shift are parts of the warp: give augment.warp_scale too")
        if self.short_choices and (self.short_range or min(self.short_choices) < 1):
            raise ValueError(f"augment.short_choices={self.short_choices} must be positive, and excludes short_range")
