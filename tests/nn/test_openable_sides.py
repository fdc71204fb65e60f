"""Box sides of length 0: as published they stay closed, with ``openable_sides`` a training reopens them."""

from __future__ import annotations

import pytest
import torch

from poise.detection_model import DetectionModel
from poise.models import create_model
from poise.nn.distances import OpenableReLU
from poise.recipes import get_recipe
from poise.structures import Batch, GroundTruth, Progress

TINY = {"backbone": "test_byobnet", "image_size": 64, "channels": 16, "depth": 1}
SIDE = 2  # left, top, right, bottom
MODELS = [("dw", {"refine": False}), ("dw", {"refine": True}), ("fcos", {}), ("autoassign", {}), ("ota", {})]


def test_values_of_relu_and_gradients_that_raise() -> None:
    inputs = torch.tensor([-2.0, -2.0, 0.0, 0.0, 3.0, 3.0], requires_grad=True)
    outputs = OpenableReLU.apply(inputs)
    assert torch.equal(outputs, inputs.relu())
    (gradient,) = torch.autograd.grad(outputs, inputs, torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0]))
    assert gradient.tolist() == [0, -1, 0, -1, 1, -1]


def closed(name: str, openable: bool, **options: object) -> DetectionModel:
    """A model in which one side of every box has length 0."""
    torch.manual_seed(0)
    model = create_model(f"{name}_r18_fpn", 2, openable_sides=openable, **options, **TINY)
    with torch.no_grad():
        outputs = model.network.branch.head.box_distances
        outputs.weight[SIDE] = 0.0
        outputs.bias[SIDE] = -0.5
    return model


def lengths(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Lengths (B,N,4) of the sides of all predicted boxes, in px from their points."""
    with torch.no_grad():
        maps = network.neck(network.backbone(batch.pixels))
        predictions = network.branch.head(maps)
    centers, boxes = predictions.priors.centers, predictions.boxes
    return torch.cat((centers - boxes[..., :2], boxes[..., 2:] - centers), -1)


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 44.0], [30.0, 20.0, 60.0, 58.0]]), "labels": torch.tensor([0, 1])}
    truth = GroundTruth.collate([target, target], [(64, 64)] * 2)
    return Batch(torch.randn(2, 3, 64, 64, generator=generator), truth, torch.arange(2))


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_a_closed_side_opens_again(name: str, options: dict[str, object]) -> None:
    data, opened, refine = batch(), {}, bool(options.get("refine"))
    for openable in (False, True):
        network = closed(name, openable, **options).network.train()
        before = lengths(network, data)[..., SIDE].clamp(min=0)
        optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
        for step in range(25):
            optimizer.zero_grad()
            sum(network(data, Progress(step, 0)).losses.values()).backward()
            optimizer.step()
        opened[openable] = float((network.branch.head.box_distances.bias[SIDE]).detach())
        if not refine:  # with refinement the boundary points may move the side themselves
            assert float(before.max()) < 1e-4
            after = lengths(network, data)[..., SIDE]
            assert (float(after.max()) > 1) == openable
    if not refine:
        assert opened[False] == pytest.approx(-0.5, abs=0.01)  # weight decay alone
    assert opened[True] > opened[False]


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_predictions_are_those_of_the_published_head(name: str, options: dict[str, object]) -> None:
    ours, published = (closed(name, openable, **options).eval() for openable in (True, False))
    ours.load_state_dict(published.state_dict())
    pixels, sizes = batch().pixels, torch.tensor([[64.0, 64.0]] * 2)
    for one, other in zip(
        ours.network.predict(pixels, sizes).unpad(), published.network.predict(pixels, sizes).unpad(), strict=True
    ):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_recipes() -> None:
    for name in ("dw", "fcos", "autoassign", "ota"):
        assert get_recipe(f"{name}_r18_fpn").model.options == {"openable_sides": True}
    assert "openable_sides" not in get_recipe("fcos_r50_fpn_1x").model.options
    assert "openable_sides" not in get_recipe("dw_r50_fpn_1x").model.options
    assert get_recipe("atss_r18_fpn").model.options == {}
