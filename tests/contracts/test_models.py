"""Contracts of every model, on small backbones; a new model is added to ``MODELS``."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from support.slow import slow_but, slow_if
from torch import Tensor

from poise.detection_model import DetectionModel
from poise.structures import Batch, GroundTruth, Progress
from poise.testing.data_dependence import DataDependence
from poise.testing.models import CHECKS, Build, build, empty, given_to, regions_of, scene

SMALL: dict[str, Any] = {"backbone": "test_resnet", "channels": 32, "depth": 1}
SMALL_REGION: dict[str, Any] = {"backbone": "test_resnet", "channels": 32, "hidden": 64}
SMALL_QUERIES: dict[str, Any] = {
    "channels": 32,
    "attention_heads": 4,
    "hidden": 64,
    "queries": 20,
    "backbone": "test_resnet",
}
SMALL_QUERIES |= {"encoder_layers": 1, "decoder_layers": 2, "deterministic": True}
SMALL_COLLABORATION = {**SMALL_QUERIES, "auxiliary_heads": "atss", "attention_heads": 4, "max_auxiliary_queries": 20}
MODELS: dict[str, dict[str, Any]] = {  # name of a model: options that make it small
    "retinanet_r18_fpn": SMALL,
    "fcos_r18_fpn": SMALL,
    "atss_r18_fpn": SMALL,
    "gfl_r18_fpn": SMALL,
    "gflv2_r18_fpn": SMALL,
    "atss_mnv3s_fpn": {"channels": 32, "depth": 1},
    "dw_r18_fpn": SMALL,
    "vfnet_r18_fpn": SMALL,
    "nanodet_plus_m_320": {"backbone": "shufflenetv2_0.5x", "channels": 32, "depth": 1, "guide_depth": 1},
    "nanodet_plus_m_416": {"backbone": "shufflenetv2_0.5x", "channels": 32, "depth": 1, "guide_depth": 0},
    "faster_rcnn_r18_fpn": SMALL_REGION,
    "fast_rcnn_r18_fpn": SMALL_REGION,
    "libra_faster_rcnn_r18_fpn": SMALL_REGION,
    "libra_retinanet_r18_fpn": SMALL,
    "autoassign_r18_fpn": SMALL,
    "freeanchor_r18_fpn": SMALL,
    "paa_r18_fpn": SMALL,
    "foveabox_r18_fpn": SMALL,
    "ota_r18_fpn": {**SMALL, "iterations": 10},
    "yolox_r18_fpn": SMALL,
    "reppoints_r18_fpn": {**SMALL, "depth": 2},
    "tood_r18_fpn": SMALL,
    "deformable_detr_r18": SMALL_QUERIES,
    "deformable_detr_twostage_r18": SMALL_QUERIES,
    "conditional_detr_r18": SMALL_QUERIES,
    "dab_detr_r18": SMALL_QUERIES,
    "dino_r18": SMALL_QUERIES,
    "h_deformable_detr_r18": {**SMALL_QUERIES, "one_to_many_queries": 10, "one_to_many_repeats": 2},
    "group_dino_r18": {**SMALL_QUERIES, "query_groups": 2, "denoising": 4},
    "co_deformable_detr_r18": SMALL_COLLABORATION,
    "co_dino_r18": SMALL_COLLABORATION,
}
WITH_RPN = [name for name in MODELS if "faster_rcnn" in name]  # the proposals' NMS stands between the stages
STEP_FACTORS = {  # factor of the number of steps
    "dab_detr_r18": 3,  # its queries start as anchors anywhere, so that at first they are alike
    "co_dino_r18": 2,
    "reppoints_r18_fpn": 2,  # on some processors, whose rounding differs, it takes more steps than on others
}
TRACED = [name for name in MODELS if name not in WITH_RPN]  # one compiled graph from pixels to losses

# Tracing a whole model takes 3 to 9 seconds: of each kind of detector one is in every run. Every assigner and every
# criterion is traced by itself in test_assigners.py and test_criteria.py.
FAST_TO_TRACE = ("fcos_r18_fpn", "fast_rcnn_r18_fpn", "deformable_detr_r18")
SLOW_TO_OVERFIT = (
    "faster_rcnn_r18_fpn", "libra_faster_rcnn_r18_fpn", "reppoints_r18_fpn", "tood_r18_fpn", "deformable_detr_r18",
    "deformable_detr_twostage_r18", "dab_detr_r18", "dino_r18",
    "h_deformable_detr_r18", "group_dino_r18", "co_deformable_detr_r18", "co_dino_r18",
)  # fmt: skip

every_model = pytest.mark.parametrize("name", MODELS)


def small(name: str, seed: int = 0) -> DetectionModel:
    return build(name, MODELS[name], seed)


@every_model
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(name: str, check: Callable[[Build], None]) -> None:
    check(partial(build, name, MODELS[name]))


@every_model
def test_no_operation_from_predictions_to_losses_depends_on_the_data(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poise.branches.region._images_per_call", lambda boxes: 1)
    model = small(name)
    pixels, targets = scene()
    truth = GroundTruth.collate(targets, [(96, 96)] * 2)
    with DataDependence() as counted:
        model.network(Batch(pixels, truth, torch.arange(2), **regions_of(model)), Progress())
    assert counted.found == ({"nms.default": len(pixels)} if name in WITH_RPN else {})


@pytest.mark.parametrize("name", slow_but(TRACED, FAST_TO_TRACE))
def test_one_graph_from_pixels_to_losses_whatever_the_number_of_objects(name: str) -> None:
    model = small(name).eval()
    pixels, targets = scene()
    graphs: list[int] = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(1)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(model.network, backend=count, fullgraph=True)
    for chosen in (targets, empty(targets)):
        truth = GroundTruth.collate(chosen, [(96, 96)] * 2)
        batch = Batch(pixels, truth, torch.arange(2), **regions_of(model))
        for key, loss in model.network(batch, Progress()).losses.items():
            torch.testing.assert_close(compiled(batch, Progress()).losses[key], loss)
    assert len(graphs) == 1


@pytest.mark.parametrize("name", slow_if(MODELS, SLOW_TO_OVERFIT))
def test_overfits_two_images(name: str) -> None:
    """Colored squares on gray: within a few steps the objects are found, best first."""
    torch.manual_seed(0)
    model = small(name).train()
    for module in model.modules():  # two images are too few for batch statistics
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    pixels, targets = torch.zeros(2, 3, 96, 96), scene()[1]
    for image, target in zip(pixels, targets, strict=True):
        for (x1, y1, x2, y2), label in zip(target["boxes"].int().tolist(), target["labels"].tolist(), strict=True):
            image[label, y1:y2, x1:x2] = 2.0
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    errors = "not evaluated"
    for step in range(1, 90 * STEP_FACTORS.get(name, 1) + 1):
        optimizer.zero_grad()
        torch.stack(list(model.losses(pixels, targets, **given_to(model)).values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        if step % 15 == 0 and not (errors := detection_errors(model, pixels, targets)):
            return
    pytest.fail(errors)


@torch.no_grad()
def detection_errors(model: DetectionModel, pixels: Tensor, targets: list[dict[str, Tensor]]) -> str:
    """Errors of the best detections, as many as there are objects; empty if there are none."""
    for found, target in zip(model.detect(pixels, **given_to(model)), targets, strict=True):
        best = found["labels"][: len(target["labels"])]
        if sorted(best.tolist()) != sorted(target["labels"].tolist()):
            return f"labels {best.tolist()} instead of {target['labels'].tolist()}"
        apart = (found["boxes"][: len(best), None] - target["boxes"][None]).abs().amax(2)
        if not float(apart.amin(0).max()) < 12:
            return f"boxes {found['boxes'][: len(best)].tolist()} instead of {target['boxes'].tolist()}"
    return ""


@every_model
def test_class_scores_that_overflow_half_precision_leave_losses_finite(name: str) -> None:
    """The weights of the last class layer are a million times too large."""
    model, (pixels, targets) = small(name).train(), scene()
    with torch.no_grad():
        scaled = [p for key, p in model.network.named_parameters() if re.search(r"\bclasses(\.\d+)?\.weight$", key)]
        for parameter in scaled:
            parameter *= 1e6
    assert scaled
    truth = GroundTruth.collate(targets, [(96, 96)] * 2)
    with torch.autocast("cpu", torch.float16):
        output = model.network(Batch(pixels, truth, torch.arange(2), **regions_of(model)), Progress.final())
    assert {term for term, loss in output.losses.items() if not loss.isfinite()} == set()


@pytest.mark.parametrize("name", ["fcos_r18_fpn", "retinanet_r18_fpn", "dino_r18"])
def test_maps_of_one_cell_have_finite_gradients_in_bfloat16(name: str) -> None:
    """The coarsest levels of small images; PyTorch's kernel leaves parts of the weight gradient uninitialized."""
    target = {"boxes": torch.tensor([[4.0, 4.0, 20.0, 22.0]]), "labels": torch.tensor([1])}
    for seed in range(4):
        model = small(name, seed).train()
        pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
        truth = GroundTruth.collate([target] * 2, [(32, 32)] * 2)
        with torch.autocast("cpu", torch.bfloat16):
            output = model.network(Batch(pixels, truth, torch.arange(2)), Progress.final())
        output.total.backward()
        named = model.network.named_parameters()
        assert not [key for key, p in named if p.grad is not None and not p.grad.isfinite().all()]
