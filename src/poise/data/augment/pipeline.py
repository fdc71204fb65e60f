"""From a scene as read to a scene as trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torchvision.transforms import v2

from poise.data.augment.chance import happens
from poise.data.augment.color import recolor
from poise.data.augment.geometry import (
    canvas_jitter,
    draw_size,
    large_scale_jitter,
    min_iou_crop,
    resize,
    resized_crop,
    warp,
)
from poise.data.augment.mixing import copy_paste, mixup, mosaic, paste_in_place
from poise.data.augment.scene import Scene, size_of, skipped
from poise.models.notation import parse_part
from poise.models.values import build_part
from poise.plugins import load_plugins
from poise.preprocess import Preprocess
from poise.recipes.augment import AugmentSettings

MAX_DRAWS = 20  # images that are drawn for one whose objects were all cut away

Pipeline = Callable[[Scene, Callable[[], Scene]], Scene]
"""Takes a scene and a function that draws another scene of the data set."""


AUGMENTATIONS: dict[str, Callable[..., Callable[[Scene], Scene]]] = {}  # of ``poise.register_augmentation``


def build_pipeline(settings: AugmentSettings, preprocess: Preprocess) -> TrainingPipeline:
    """The augmentation that ``settings`` describe, ending at the image size that ``preprocess`` asks for.

    Raises:
        ValueError: an augmentation in ``settings.extra`` is unknown, or has a wrong option.
    """
    parts = [parse_part(text) for text in settings.extra]
    if any(part.name not in AUGMENTATIONS for part in parts):
        load_plugins()
    extra = tuple(build_part(part, "augmentation", AUGMENTATIONS) for part in parts)
    return TrainingPipeline(settings, preprocess, extra)


@dataclass(frozen=True)
class TrainingPipeline:
    """Applies the transforms in a fixed order; every random choice is drawn from PyTorch's CPU generator."""

    settings: AugmentSettings
    preprocess: Preprocess
    extra: tuple[Callable[[Scene], Scene], ...] = ()

    def __call__(self, scene: Scene, partner: Callable[[], Scene]) -> Scene:
        chances = self.settings
        if chances.jitter_canvas:
            return self._colored(self._on_square(scene, partner))
        size = draw_size(self._limits(), chances.short_range, chances.short_choices)
        if chances.crop and happens(chances.crop):
            scene = resized_crop(scene, chances.crop_short_choices, chances.crop_longest, chances.crop_sides)
        if happens(chances.min_iou_crop):
            scene = min_iou_crop(scene)
        height, width = size.target_size(*size_of(scene))
        early = self._distorts_before(scene, height, width)
        scene = self._distorted(scene) if early else scene
        if happens(chances.mosaic):
            scene = mosaic([scene, partner(), partner(), partner()], height, width)
        elif chances.scale_jitter:
            scene = large_scale_jitter(scene, height, width, chances.scale_jitter)
        elif chances.warp_scale:
            scene = warp(
                scene, height, width, scale=chances.warp_scale, stretch=chances.warp_stretch, shift=chances.warp_shift
            )
        else:
            scene = resize(scene, height, width, self.preprocess)
        if happens(chances.copy_paste):
            scene = copy_paste(scene, partner())
        if happens(chances.mixup):
            scene = mixup(scene, partner())
        scene = v2.RandomHorizontalFlip(chances.flip)(scene)
        return self._colored(scene, distort=not early)

    def _distorts_before(self, scene: Scene, height: int, width: int) -> bool:
        """Whether photometric distortion comes before the resize: the image grows and no other is mixed in."""
        chances = self.settings
        high, wide = size_of(scene)
        return high * wide < height * width and not (chances.mosaic or chances.mixup or chances.copy_paste)

    def _limits(self) -> Preprocess:
        """The model's own, with another limit of the longer side where the settings have one."""
        longest = self.settings.longest
        short = min(self.preprocess.short, longest)
        return replace(self.preprocess, short=short, long=longest) if longest else self.preprocess

    def _on_square(self, scene: Scene, partner: Callable[[], Scene]) -> Scene:
        """Jittered on a square; objects of a second image that went the same way are pasted in."""
        scene = self._jittered(scene, partner)
        if happens(self.settings.copy_paste):
            scene = paste_in_place(scene, self._jittered(partner(), partner))
        return scene

    def _jittered(self, scene: Scene, partner: Callable[[], Scene]) -> Scene:
        chances = self.settings
        for _ in range(MAX_DRAWS):
            placed = canvas_jitter(scene, chances.jitter_canvas, chances.scale_jitter)
            if not chances.redraw_empty or not skipped(placed).all():
                break
            scene = partner()
        flipped: Scene = v2.RandomHorizontalFlip(chances.flip)(placed)
        return flipped

    def _distorted(self, scene: Scene) -> Scene:
        return v2.RandomPhotometricDistort()(scene) if happens(self.settings.photometric) else scene

    def _colored(self, scene: Scene, distort: bool = True) -> Scene:
        chances = self.settings
        scene = recolor(scene, chances.recolor) if chances.recolor else scene
        scene = self._distorted(scene) if distort else scene
        for transform in self.extra:
            scene = transform(scene)
        return scene

    def plain(self) -> TrainingPipeline:
        """The same without what mixes images (for the last epochs)."""
        return replace(self, settings=replace(self.settings, mosaic=0.0, mixup=0.0, copy_paste=0.0))


@dataclass(frozen=True)
class EvaluationPipeline:
    """Resizing alone."""

    preprocess: Preprocess

    def __call__(self, scene: Scene, partner: Callable[[], Scene]) -> Scene:
        return resize(scene, *self.preprocess.target_size(*size_of(scene)), self.preprocess, exact=True)
