"""From a scene as read to a scene as trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torchvision.transforms import v2

from poise.data.augment.chance import happens
from poise.data.augment.color import recolor
from poise.data.augment.geometry import draw_size, large_scale_jitter, min_iou_crop, resize, warp
from poise.data.augment.mixing import copy_paste, mixup, mosaic
from poise.data.augment.scene import Scene, size_of
from poise.preprocess import Preprocess
from poise.recipes.augment import AugmentSettings

Pipeline = Callable[[Scene, Callable[[], Scene]], Scene]
"""Takes a scene and a function that draws another scene of the data set."""


def build_pipeline(settings: AugmentSettings, preprocess: Preprocess) -> TrainingPipeline:
    """The augmentation that ``settings`` describe, ending at the image size that ``preprocess`` asks for."""
    return TrainingPipeline(settings, preprocess)


@dataclass(frozen=True)
class TrainingPipeline:
    """Applies the transforms in a fixed order; every random choice is drawn from PyTorch's CPU generator."""

    settings: AugmentSettings
    preprocess: Preprocess

    def __call__(self, scene: Scene, partner: Callable[[], Scene]) -> Scene:
        chances = self.settings
        size = draw_size(self.preprocess, chances.short_range, chances.short_choices)
        if happens(chances.min_iou_crop):
            scene = min_iou_crop(scene)
        height, width = size.target_size(*size_of(scene))
        if happens(chances.mosaic):
            scene = mosaic([scene, partner(), partner(), partner()], height, width)
        elif chances.scale_jitter:
            scene = large_scale_jitter(scene, height, width, chances.scale_jitter)
        elif chances.warp_scale:
            scene = warp(scene, height, width, chances.warp_scale, chances.warp_stretch, chances.warp_shift)
        else:
            scene = resize(scene, height, width, self.preprocess)
        if happens(chances.copy_paste):
            scene = copy_paste(scene, partner())
        if happens(chances.mixup):
            scene = mixup(scene, partner())
        scene = v2.RandomHorizontalFlip(chances.flip)(scene)
        scene = recolor(scene, chances.recolor) if chances.recolor else scene
        return v2.RandomPhotometricDistort()(scene) if happens(chances.photometric) else scene

    def plain(self) -> TrainingPipeline:
        """The same without what mixes images (for the last epochs)."""
        return replace(self, settings=replace(self.settings, mosaic=0.0, mixup=0.0, copy_paste=0.0))


@dataclass(frozen=True)
class EvaluationPipeline:
    """Resizing alone."""

    preprocess: Preprocess

    def __call__(self, scene: Scene, partner: Callable[[], Scene]) -> Scene:
        return resize(scene, *self.preprocess.target_size(*size_of(scene)), self.preprocess)
