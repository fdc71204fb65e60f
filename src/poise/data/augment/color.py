"""NanoDet's color augmentation."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import v2

from poise.data.augment.chance import between, happens
from poise.data.augment.scene import Scene

BRIGHTNESS = 0.2  # greatest shift, as a share of white
CONTRAST = (0.6, 1.4)  # factor of every value
SATURATION = (0.5, 1.2)  # factor of the S of HSV


def recolor(scene: Scene, probability: float) -> Scene:
    """Shift the brightness, scale contrast and saturation, each with this probability; cut off at black and white."""
    image = scene["image"].as_subclass(Tensor).float()
    if happens(probability):
        image.add_(255 * between(-BRIGHTNESS, BRIGHTNESS))
    if happens(probability):
        image.mul_(between(*CONTRAST))
    if happens(probability):  # hue and value stay when every channel's distance from the greatest is scaled
        greatest = image.amax(0)
        image = torch.sub(greatest, image, out=image).mul_(-between(*SATURATION)).add_(greatest)
    return {**scene, "image": v2.functional.to_image(image.round_().clamp_(0, 255).to(torch.uint8))}
