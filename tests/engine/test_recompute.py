"""A backbone that computes its activations again: the same losses and gradients from fewer kept activations."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from poise.detection_model import DetectionModel
from poise.engine.model import checkpoint_backbone
from poise.models import create_model

SMALL: dict[str, Any] = {"channels": 16, "attention_heads": 2, "hidden": 16, "queries": 9, "encoder_layers": 1}
SMALL |= {"decoder_layers": 1, "auxiliary_heads": ""}


def gradients(model: DetectionModel) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients of a step, and how many numbers the graph kept."""
    kept = 0

    def count(value: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += value.numel()
        return value

    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    target = {"boxes": torch.tensor([[4.0, 4.0, 40.0, 50.0]]), "labels": torch.tensor([1])}
    with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
        losses = model.train().losses(pixels, [target])
        total = torch.stack(list(losses.values())).sum()
    total.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, kept


def test_gradients_are_the_same_from_fewer_activations() -> None:
    torch.manual_seed(0)
    model = create_model("co_deformable_detr_swin_t", num_classes=3, drop_path=0.0, **SMALL)
    plain, much = gradients(model)
    model.zero_grad()
    checkpoint_backbone(model)
    again, less = gradients(model)
    assert plain.keys() == again.keys() and less < 0.7 * much
    for name, value in plain.items():
        torch.testing.assert_close(again[name], value, rtol=1e-4, atol=1e-6)


def test_batch_norms_would_count_twice() -> None:
    with pytest.raises(ValueError, match="would count every image twice"):
        checkpoint_backbone(create_model("co_deformable_detr_r18", num_classes=3, **SMALL))
