"""Small Deformable DETRs with two images, for tests of the supervision of their queries."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from poise.detection_model import DetectionModel
from poise.models import create_model
from poise.structures import Batch, GroundTruth, Progress

SMALL: dict[str, Any] = {"channels": 16, "attention_heads": 2, "hidden": 32, "queries": 7, "encoder_layers": 1}
SMALL |= {"decoder_layers": 2, "backbone": "test_resnet"}
TRUTH = GroundTruth.collate(
    [
        {"boxes": torch.tensor([[4.0, 6.0, 40.0, 50.0], [20.0, 10.0, 60.0, 30.0]]), "labels": torch.tensor([0, 2])},
        {"boxes": torch.tensor([[8.0, 8.0, 30.0, 24.0]]), "labels": torch.tensor([1])},
    ],
    [(64, 64)] * 2,
    multiple=1,
)
forms = pytest.mark.parametrize("name", ["deformable_detr_r18", "deformable_detr_plus_r18", "dino_r18"])


def small(name: str, **options: Any) -> DetectionModel:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **{**SMALL, **options}, deterministic=True).eval()
    for parameter in model.network.decoder.parameters():  # prediction heads that start at zero predict no box
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def pixels() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def losses_of(model: DetectionModel) -> dict[str, Tensor]:
    batch = Batch(pixels(), TRUTH, torch.arange(2))
    losses: dict[str, Tensor] = model.network(batch, Progress.final()).losses
    return losses
