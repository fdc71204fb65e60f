"""Distinct query selection (DDQ) against NMS box by box, alone and in a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import small_detrs
from torch import Tensor

from poise.boxes import cxcywh_to_xyxy, iou
from poise.detection_model import DetectionModel
from poise.export import export_model
from poise.models import create_model
from poise.nn.transformer.distinct import POOL, distinct_first
from poise.structures import Batch, GroundTruth, Progress

SMALL = small_detrs.SMALL | {"deterministic": True}
FORMS = pytest.mark.parametrize("name", ["deformable_detr_twostage_r18", "deformable_detr_plus_r18", "dino_r18"])


def crowded(seed: int, batch: int = 3, count: int = 60) -> Tensor:
    """Normalized boxes around a few centers."""
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand(batch, 6, 4, generator=generator) * 0.4 + 0.2
    near = center[:, torch.arange(count) % 6]
    return near + torch.randn(batch, count, 4, generator=generator) * 0.02


def slow_order(boxes: Tensor, order: list[int], threshold: float) -> list[int]:
    """What NMS keeps of an image's candidates, then what it drops."""
    kept: list[int] = []
    xyxy = cxcywh_to_xyxy(boxes.double())
    for n in order:
        if all(float(iou(xyxy[n], xyxy[m])) <= threshold for m in kept):
            kept.append(n)
    return kept + [n for n in order if n not in kept]


@pytest.mark.parametrize("threshold", [0.3, 0.8])
def test_kept_boxes_come_first(threshold: float) -> None:
    boxes = crowded(0)
    order = torch.stack([torch.randperm(60, generator=torch.Generator().manual_seed(i))[:40] for i in range(3)])
    found = distinct_first(boxes, order, threshold)
    for image in range(3):
        wanted = slow_order(boxes[image], order[image].tolist(), threshold)
        assert found[image].tolist() == wanted != order[image].tolist()
        alone = distinct_first(boxes[image : image + 1], order[image : image + 1], threshold)
        assert torch.equal(alone[0], found[image])
    assert torch.equal(distinct_first(boxes, order, 1.0), order)


def test_values_that_are_not_finite_stay_in_their_image() -> None:
    boxes = crowded(1)
    order = torch.arange(60).expand(3, -1)
    wanted = distinct_first(boxes, order, 0.8)
    boxes[1, ::3] = torch.nan
    found = distinct_first(boxes, order, 0.8)
    assert torch.equal(found[[0, 2]], wanted[[0, 2]]) and sorted(found[1].tolist()) == list(range(60))


def lively(name: str, **options: Any) -> DetectionModel:
    """A small random model whose scores and proposals differ."""
    torch.manual_seed(0)
    model = create_model(name, 3, image_size=64, **{**SMALL, **options}).eval()
    for key, parameter in model.named_parameters():
        if key.endswith("classes.weight"):
            parameter.data.normal_(0, 0.5)
        if key.endswith("box.layers.2.bias"):
            parameter.data[2:] = 3.0  # boxes of neighbors overlap
    return model


@torch.no_grad()
@FORMS
def test_selection(name: str) -> None:
    plain, model = lively(name), lively(name, distinct_queries=0.3)
    model.load_state_dict(plain.state_dict())  # no parameters of its own
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    network: Any = model.network
    memory = network.encode(pixels, torch.full((2, 2), 64.0))
    everything: Any = plain.network
    ranked = everything.queries(memory, memory.values.shape[1])
    queries = network.queries(memory)
    for image in range(2):
        order, boxes = ranked.token_index[image].tolist(), ranked.references[image]
        best = range(min(POOL * 7, len(order)))
        wanted = [order[n] for n in slow_order(boxes, list(best), 0.3)[:7]]
        assert queries.token_index[image].tolist() == wanted
    assert not torch.equal(queries.token_index, ranked.token_index[:, :7])


@FORMS
def test_training(name: str) -> None:
    model = lively(name, distinct_queries=0.8, **({"query_groups": 2} if "dino" in name else {})).train()
    targets = [{"boxes": torch.tensor([[4.0, 6.0, 40.0, 50.0]]), "labels": torch.tensor([2])}]
    batch = Batch(torch.randn(1, 3, 64, 64), GroundTruth.collate(targets, [(64, 64)]), torch.arange(1))
    losses = model.network(batch, Progress.final()).losses
    torch.stack(list(losses.values())).sum().backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert not [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no effect with select='none'.*select='best_class'"):
        create_model("deformable_detr_r18", 3, **SMALL, distinct_queries=0.8)
    with pytest.raises(ValueError, match="an IoU below 1, such as 0.8"):
        create_model("dino_r18", 3, **SMALL, distinct_queries=8.0)
    model = lively("dino_r18", distinct_queries=0.8)
    with pytest.raises(ValueError, match="no operator for the NMS of distinct_queries.*use onnx"):
        export_model(model, tmp_path / "x.pte", [torch.zeros(3, 64, 64)], format="executorch")
