"""Query detectors: padding, bad input, and options."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from poise.assign import hungarian
from poise.detection_model import DetectionModel
from poise.models import create_model
from poise.structures import Batch, GroundTruth, Progress

SMALL: dict[str, Any] = {
    "channels": 32,
    "attention_heads": 4,
    "hidden": 64,
    "queries": 20,
    "encoder_layers": 2,
    "decoder_layers": 2,
}
NAMES = ("deformable_detr_r18", "deformable_detr_twostage_r18", "conditional_detr_r18", "dab_detr_r18", "dino_r18")

each = pytest.mark.parametrize("name", NAMES)


def small(name: str, **options: Any) -> DetectionModel:
    torch.manual_seed(0)
    return create_model(name, num_classes=3, **{**SMALL, "backbone": "mobilenetv3_small_100", **options})


def losses_of(model: DetectionModel, pixels: Tensor, boxes: list[list[list[float]]]) -> dict[str, Tensor]:
    targets = [
        {"boxes": torch.tensor(image).reshape(-1, 4), "labels": torch.zeros(len(image), dtype=torch.int64)}
        for image in boxes
    ]
    return model.losses(pixels, targets)


def check_step(model: DetectionModel, pixels: Tensor, boxes: list[list[list[float]]]) -> None:
    losses = losses_of(model, pixels, boxes)
    assert all(loss.isfinite() for loss in losses.values()), losses
    torch.stack(list(losses.values())).sum().backward()
    for key, parameter in model.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, key  # what other ranks would wait for
        assert parameter.grad is None or parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", [name for name in NAMES if "dino" not in name])  # it encodes boxes with their padding
def test_padding_changes_nothing(name: str) -> None:
    """The maps of an image of 96 x 64 pixels alone, and in a canvas of 128 x 128 with anything in the rest."""
    network: Any = small(name).eval().network
    torch.manual_seed(1)
    outputs = []
    alone = [torch.randn(1, SMALL["channels"], -(-96 // s), -(-64 // s)) for s in network.neck.strides]
    for canvas in ((96, 64), (128, 128)):
        maps = []
        for level, stride in zip(alone, network.neck.strides, strict=True):
            maps.append(torch.full((1, SMALL["channels"], *(-(-side // stride) for side in canvas)), 7.0))
            maps[-1][:, :, : level.shape[2], : level.shape[3]] = level
        memory = network.encoder(network.tokenizer(maps, torch.tensor([[96.0, 64.0]]), canvas))
        outputs.append(network.decoder(network.queries(memory), memory))
    torch.testing.assert_close(outputs[0].logits, outputs[1].logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outputs[0].boxes, outputs[1].boxes, atol=1e-4, rtol=1e-4)


@each
@pytest.mark.parametrize("boxes", [[[], []], [[[8.0, 8.0, 56.0, 60.0]], []]], ids=["none", "one image without"])
def test_batches_without_objects(name: str, boxes: list[list[list[float]]]) -> None:
    check_step(small(name).train(), torch.randn(2, 3, 96, 96), boxes)


@each
def test_images_smaller_than_a_stride(name: str) -> None:
    model, pixels = small(name).train(), torch.randn(1, 3, 7, 5)
    model.network.backbone.eval()  # a single cell has no batch statistics
    check_step(model, pixels, [[[1.0, 1.0, 4.0, 6.0]]])
    assert len(model.eval().detect(pixels)[0]["scores"]) > 0


@each
def test_more_objects_than_queries(name: str) -> None:
    corners = torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) * 60
    boxes = torch.cat((corners, corners + 20), 1).tolist()
    check_step(small(name).train(), torch.randn(1, 3, 96, 96), [boxes])


@each
def test_logits_that_overflow_half_precision(name: str) -> None:
    model = small(name).train()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("classes.weight"):
                parameter *= 1e6
    with torch.autocast("cpu", dtype=torch.float16):
        losses = losses_of(model, torch.randn(2, 3, 96, 96), [[[8.0, 8.0, 56.0, 60.0]], []])
    assert all(loss.isfinite() for loss in losses.values())


def test_costs_of_all_layers_go_to_the_host_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call of the solver for the encoder's proposals, six layers and two images."""
    calls: list[torch.Size] = []
    solve = hungarian.cheapest_queries
    monkeypatch.setattr(hungarian, "cheapest_queries", lambda cost: calls.append(cost.shape) or solve(cost))
    model = small("dino_r18", decoder_layers=6)
    losses_of(model, torch.randn(2, 3, 96, 96), [[[8.0, 8.0, 56.0, 60.0]], []])
    assert [shape[0] for shape in calls] == [7 * 2]


def test_matches_are_kept_by_stage() -> None:
    model = small("dino_r18")
    truth = GroundTruth.collate(
        [{"boxes": torch.tensor([[8.0, 8.0, 56.0, 60.0]]), "labels": torch.tensor([2])}], [(96, 96)]
    )
    output = model.network(Batch(torch.randn(1, 3, 96, 96), truth, torch.arange(1)), Progress())
    assert list(output.matches) == ["encoder", "queries/1", "queries", "denoising"]
    assert int(output.matches["queries"].assignment.positive.sum()) == 1
    assert output.matches["queries"].predictions.priors.boxes.shape == (1, SMALL["queries"], 4)


def test_activation_checkpointing_changes_no_gradient() -> None:
    pixels, boxes = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), [[[8.0, 8.0, 56.0, 60.0]]]
    gradients = []
    for layers in (0, 1):
        model = small("deformable_detr_r18", dropout=0.0, checkpointed_layers=layers).eval()
        torch.stack(list(losses_of(model, pixels, boxes).values())).sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_both_scores_of_query_selection() -> None:
    """Scored by the first class all proposals are supervised; scored by the best class the selected ones are."""
    pixels, boxes = torch.randn(1, 3, 64, 64), [[[8.0, 8.0, 56.0, 60.0]]]
    for select in ("first_class", "best_class"):
        losses = losses_of(small("deformable_detr_twostage_r18", select=select), pixels, boxes)
        assert "enc_loss_cls" in losses
    with pytest.raises(ValueError, match="first_class"):
        small("deformable_detr_twostage_r18", select="class_one")
