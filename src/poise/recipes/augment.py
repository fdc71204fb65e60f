"""Settings of the augmentation; ``poise.data.augment`` implements them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AugmentSettings:
    """Augmentation of training images. Probabilities lie in [0,1]; 0 (or an empty range) disables a transform."""

    flip: float = 0.5
    """Probability of a horizontal flip."""
    short_range: tuple[int, ...] = ()
    """(minimum, maximum) of the shorter side in pixels, drawn for every image, both included; empty: one size."""
    short_choices: tuple[int, ...] = ()
    """Shorter sides in pixels, one drawn for every image, as in the DETR family; instead of ``short_range``."""
    longest: int = 0
    """Limit of the longer side in training; 0: the model's own."""
    crop: float = 0.0
    """Probability of a crop before the resize, as in the DETR family (0.5 there)."""
    crop_short_choices: tuple[int, ...] = (400, 500, 600)
    """Shorter sides before that crop, one drawn for every image."""
    crop_longest: int = 4200
    """Limit of the longer side before that crop (1333 in DETR, Conditional- and DAB-DETR)."""
    crop_sides: tuple[int, ...] = (384, 600)
    """(minimum, maximum) of the crop's height and width, each drawn, both included; at most the side of the image."""
    photometric: float = 0.0
    """Probability of photometric distortion (brightness, contrast, saturation, hue)."""
    min_iou_crop: float = 0.0
    """Probability of a random crop that keeps a minimum overlap with the objects (SSD)."""
    scale_jitter: tuple[float, ...] = ()
    """(minimum, maximum) factor of large-scale jitter, followed by a crop to the image size; empty: none."""
    jitter_canvas: int = 0
    """Side of the square to which large-scale jitter crops and pads with gray (Co-DETR); copy_paste then pastes up to
    99 objects of a second such image at their positions. 0: images keep their shape."""
    redraw_empty: bool = False
    """With jitter_canvas: replace an image whose objects were all cropped away by another one, as published."""
    warp_scale: tuple[float, ...] = ()
    """(minimum, maximum) scale of an affine warp about the image's center (NanoDet); empty: no warp."""
    warp_stretch: tuple[float, ...] = ()
    """(minimum, maximum) additional scale of each axis of the warp; empty: none."""
    warp_shift: float = 0.0
    """Largest shift of the warp, as a fraction of width and height."""
    recolor: float = 0.0
    """Probability of each color jitter: brightness, contrast, saturation (NanoDet)."""
    mosaic: float = 0.0
    """Probability of a mosaic of four images."""
    mixup: float = 0.0
    """Probability of blending with a second image."""
    copy_paste: float = 0.0
    """Probability of pasting boxes of a second image."""
    extra: tuple[str, ...] = ()
    """Augmentations of plug-ins, applied last and in this order, such as ``gray(probability=0.1)``."""
    plain_epochs: int = 0
    """Number of last epochs without mosaic, mixup and copy-paste."""

    def __post_init__(self) -> None:
        for name in (
            "flip",
            "photometric",
            "min_iou_crop",
            "warp_shift",
            "recolor",
            "mosaic",
            "mixup",
            "copy_paste",
            "crop",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augment.{name}={getattr(self, name)} must lie in [0, 1]")
        for name in ("short_range", "scale_jitter", "warp_scale", "warp_stretch", "crop_sides"):
            values = getattr(self, name)
            if (values or name == "crop_sides") and (len(values) != 2 or not 0 < values[0] <= values[1]):
                raise ValueError(f"augment.{name}={values} must be (minimum, maximum), positive, or empty")
        if (self.warp_stretch or self.warp_shift) and not self.warp_scale:
            raise ValueError("augment.warp_stretch and warp_shift are parts of the warp: give augment.warp_scale too")
        if min(self.longest, self.jitter_canvas) < 0 or min((self.crop_longest, *self.crop_short_choices, 0)) < 0:
            raise ValueError("augment.longest, jitter_canvas, crop_longest and crop_short_choices cannot be negative")
        if self.crop and (not self.crop_short_choices or max(self.crop_short_choices) > self.crop_longest):
            choices = f"augment.crop_short_choices={self.crop_short_choices}"
            raise ValueError(f"{choices} must hold sides of at most augment.crop_longest={self.crop_longest}")
        if self.jitter_canvas and (not self.scale_jitter or self.mosaic or self.mixup or self.warp_scale):
            raise ValueError(
                "augment.jitter_canvas needs augment.scale_jitter, and excludes mosaic, mixup and the warp"
            )
        if self.redraw_empty and not self.jitter_canvas:
            raise ValueError("augment.redraw_empty is part of the jitter on a square: give augment.jitter_canvas too")
        if self.short_choices and (self.short_range or min(self.short_choices) < 1):
            raise ValueError(f"augment.short_choices={self.short_choices} must be positive, and excludes short_range")
