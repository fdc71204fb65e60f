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
    longest: int = 0
    """Limit of the longer side in training; 0: the model's own."""
    crop: float = 0.0
    """Probability that an image is resized and cropped before it is resized (the DETR family; 0.5 there)."""
    crop_short_choices: tuple[int, ...] = (400, 500, 600)
    """Shorter sides before that crop, one drawn for every image."""
    crop_longest: int = 4200
    """Limit of the longer side before that crop (1333 in DETR, Conditional- and DAB-DETR)."""
    crop_sides: tuple[int, ...] = (384, 600)
    """(least, greatest) height and width of that crop, each drawn, both ends included; an image's side at most."""
    photometric: float = 0.0
    """Probability of a distortion of brightness, contrast, saturation and hue."""
    min_iou_crop: float = 0.0
    """Probability of a random crop that keeps a minimum overlap with the objects (SSD)."""
    scale_jitter: tuple[float, ...] = ()
    """(least, greatest) factor of large-scale jitter followed by a crop to the image size; empty: none."""
    jitter_canvas: int = 0
    """Side of a square that large-scale jitter fits images into, cuts to and fills up with gray (Co-DETR); copy_paste
    then pastes objects of a second such image where they lie, up to 99. 0: images keep their own shape."""
    redraw_empty: bool = False
    """On that square: an image whose objects were all cut away makes room for another one, as published."""
    warp_scale: tuple[float, ...] = ()
    """(least, greatest) factor of a warp about the image's center onto the whole input (NanoDet); empty: no warp."""
    warp_stretch: tuple[float, ...] = ()
    """(least, greatest) further factor of each axis of the warp; empty: none."""
    warp_shift: float = 0.0
    """The warp moves the center by up to this share of width and height."""
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
                raise ValueError(f"augment.{name}={values} must be (least, greatest), positive, or empty")
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
