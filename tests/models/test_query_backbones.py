"""Backbones of the DETR family that the parity tests do not build."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from poise.models import create_model

SMALL = {"channels": 32, "hidden": 64, "encoder_layers": 1, "decoder_layers": 2, "queries": 20}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("co_deformable_detr_r18", {"auxiliary_heads": "atss", "max_auxiliary_queries": 10}),
        ("deformable_detr_plus_r18", {}),
    ],
)
def test_shufflenet_trains_all_parameters(name: str, options: dict[str, object]) -> None:
    model = create_model(name, num_classes=3, backbone="shufflenetv2_0.5x", **SMALL, **options)
    targets = [{"boxes": torch.tensor([[8.0, 8.0, 40.0, 60.0]]), "labels": torch.tensor([1])}]
    torch.stack(list(model.train().losses(torch.randn(1, 3, 64, 64), targets).values())).sum().backward()
    body = model.network.backbone
    assert isinstance(body, nn.Module)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in body.parameters())


def test_unsupported_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shufflenetv2_0.5x.*all stages are trained"):
        create_model("co_deformable_detr_r18", backbone="shufflenetv2_0.5x", frozen_stages=1)
    with pytest.raises(ValueError, match=r"only stages \(3, 4, 5\)"):
        create_model("co_dino_5scale_r50", backbone="shufflenetv2_0.5x")
