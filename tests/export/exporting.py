"""Small models and images that several tests of exports share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from poise.detection_model import DetectionModel
from poise.models import create_model

NANODET: dict[str, Any] = {"backbone": "shufflenetv2_0.5x", "channels": 16, "depth": 1, "guide_depth": 1}
PLAIN = {**NANODET, "backbone": "test_resnet"}  # half of the layers to trace, where the backbone is not in question
SMALL: dict[str, Any] = {"channels": 16, "depth": 1}


def images(count: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(50, 64), (64, 40)] * count
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes[:count]]


def lively(name: str, seed: int = 0, **options: Any) -> DetectionModel:
    """A random model whose scores pass its threshold in places."""
    torch.manual_seed(seed)
    model = create_model(name, num_classes=3, image_size=64, **options).eval()
    model.set_classes(("cat", "dog", "bird"), (7, 8, 9))
    for key, parameter in model.network.branch.head.named_parameters():
        if "classes" in key:
            parameter.data.normal_(0, 1) if parameter.ndim > 1 else parameter.data.fill_(-2.5)
    return model


def nanodet(seed: int = 0, options: dict[str, Any] = NANODET) -> DetectionModel:
    return lively("nanodet_plus_m_320", seed, **options)


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Detections of one image that differ by no more than an fp32 export may."""
    assert len(ours["scores"]) > 0
    torch.testing.assert_close(theirs["boxes"], ours["boxes"], atol=0.1, rtol=0)
    torch.testing.assert_close(theirs["scores"], ours["scores"], atol=1e-3, rtol=0)
    assert torch.equal(theirs["labels"], ours["labels"])
