"""Heads decoded from the outputs of their layers alone."""

from __future__ import annotations

import pytest
import torch
from contracts.test_models import MODELS, small
from torch import Tensor

from poise.export.graph import metadata_of
from poise.export.raw import decoded, recorded


def one_stage(name: str) -> bool:
    return not any(kind in name for kind in ("rcnn", "detr", "dino"))


@pytest.mark.parametrize("name", [name for name in MODELS if one_stage(name)])
def test_decoding_needs_no_more_than_the_outputs(name: str) -> None:
    model = small(name).eval()
    network, metadata = model.network, metadata_of(model, "raw", False, "fp32")
    pixels = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, outputs = recorded(network.branch.head, network.neck(network.backbone(pixels)))  # type: ignore[operator,union-attr]
    found = decoded(network.branch.head, outputs, metadata.channels, metadata.level_shapes(96, 64))  # type: ignore[union-attr]
    for name in ("boxes", "logits"):
        assert torch.equal(getattr(found, name), getattr(wanted, name))
    assert torch.equal(found.scores(), wanted.scores()) and torch.equal(
        found.threshold_scores(), wanted.threshold_scores()
    )
    assert found.priors.level_sizes == wanted.priors.level_sizes == metadata.level_sizes(96, 64)


def test_the_head_is_left_as_it_was() -> None:
    model = small("atss_r18_fpn").eval()
    maps = [torch.randn(1, 32, size, size) for size in (12, 6, 3, 2, 1)]

    def boxes() -> Tensor:
        return model.network.branch.head(maps).boxes.detach()  # type: ignore[operator,union-attr]

    before = boxes()
    recorded(model.network.branch.head, maps)  # type: ignore[union-attr]
    assert torch.equal(boxes(), before)
