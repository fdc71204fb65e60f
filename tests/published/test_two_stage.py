"""Older two-stage checkpoints: background first, offsets of the background, no prefix."""

from __future__ import annotations

import pytest
import torch
from support.parity import checkpoint
from torch import Tensor

from poise.models import create_model
from poise.published import load_published


def older(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights as MMDetection 0.6 would have stored them, built from the description of its layout."""
    result = {}
    for key, value in state.items():
        if key.endswith(("fc_cls.weight", "fc_cls.bias")):
            value = torch.cat((value[-1:], value[:-1]))
        elif key.endswith(("fc_reg.weight", "fc_reg.bias")):
            value = torch.cat((torch.full_like(value[:4], 7.0), value))
        result[key.replace("roi_head.bbox_head", "bbox_head")] = value
    return result


@pytest.mark.parametrize("name", ["faster_rcnn", "libra_faster_rcnn"])
def test_both_generations_give_the_same_model(name: str) -> None:
    state = checkpoint(f"{name}_r50")
    models = [create_model(f"{name}_r50_fpn"), create_model(f"{name}_r50_fpn")]
    for model, source in zip(models, (state, {"state_dict": older(state)}), strict=True):
        report = load_published(model, source)
        assert not report.unexpected
        assert not report.missing
    for (key, new), old in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        assert torch.equal(new, old), key


def test_sigmoid_layers_are_not_rotated() -> None:
    state = checkpoint("faster_rcnn_r50")
    model = create_model("faster_rcnn_r50_fpn")
    load_published(model, older(state))
    head = model.network.branch.proposal.head  # type: ignore[union-attr]
    assert torch.equal(head.objectness.bias, state["rpn_head.rpn_cls.bias"])  # type: ignore[union-attr]


def test_other_class_counts() -> None:
    state = checkpoint("faster_rcnn_r50")
    model = create_model("faster_rcnn_r50_fpn", num_classes=3)
    with pytest.raises(ValueError, match="remap_classes"):
        load_published(model, state)
    remade = load_published(model, state, remap_classes=True).reinitialized
    assert {name.split(".", 3)[-1] for name in remade} == {
        f"{part}.{kind}" for part in ("classes", "offsets") for kind in ("weight", "bias")
    }
