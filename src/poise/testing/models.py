"""The contract of models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from poise.detection_model import DetectionModel, proposals_from_boxes, with_postprocess_options
from poise.models import create_model
from poise.structures import Detections
from poise.testing.checks import run_checks

Build: TypeAlias = Callable[[int], DetectionModel]  # from the seed of the weights
SIZE, CLASSES = 96, 3


def check_model(name: str, **options: Any) -> None:
    """Check that a model keeps the contract of models, with random weights and small images.

    Args:
        name: of ``create_model``, such as ``"ours_r18_fpn"``.
        options: keyword arguments of ``create_model``, best such that the model is small.

    Raises:
        BrokenContract: a promise is broken; the message says which.
    """
    run_checks(f"model {name}", CHECKS, partial(build, name, options))


def build(name: str, options: dict[str, Any], seed: int) -> DetectionModel:
    """Build a model for ``scene``; the seed is that of its weights."""
    torch.manual_seed(seed)
    return create_model(name, num_classes=CLASSES, image_size=SIZE, **options)


def scene(seed: int = 0) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Return two images of 96 pixels, one with two objects and one with one, of three classes."""
    pixels = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(seed))
    boxes = torch.tensor([[8.0, 8.0, 56.0, 60.0], [40.0, 30.0, 90.0, 90.0]])
    return pixels, [
        {"boxes": boxes, "labels": torch.tensor([0, 2])},
        {"boxes": boxes[:1] + 20, "labels": torch.tensor([1])},
    ]


def given_to(model: DetectionModel, images: int = 2) -> dict[str, Any]:
    """Return proposals, the same for every image, for models that need them."""
    if not model.needs_proposals:
        return {}
    corner = torch.rand(30, 2, generator=torch.Generator().manual_seed(0)) * 60
    random = torch.cat((corner, corner + 10 + corner.flip(0) / 3), 1)
    near = scene()[1][0]["boxes"] + torch.tensor([2.0, -2.0, 3.0, 0.0])
    return {"proposals": [torch.cat((near, near[:1] + 20, random))] * images}


def regions_of(model: DetectionModel, images: int = 2) -> dict[str, Detections]:
    """Return the proposals of ``given_to`` as a batch has them."""
    return {name: proposals_from_boxes(boxes) for name, boxes in given_to(model, images).items()}


def empty(targets: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Return the targets without objects."""
    return [{key: value[:0] for key, value in target.items()} for target in targets]


def every_parameter_gets_a_finite_gradient(build: Build) -> None:
    """Every trained parameter gets a finite gradient, with objects and without any."""
    pixels, targets = scene()
    for some in (targets, empty(targets)):
        model = build(0).train()
        losses = model.losses(pixels, some, **given_to(model))
        torch.stack(list(losses.values())).sum().backward()
        for key, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None and parameter.grad.isfinite().all(), key


def losses_whatever_the_mode_and_detections_whatever_the_mode(build: Build) -> None:
    """Losses and detections are computed in training and in evaluation mode."""
    model = build(0)
    pixels, targets = scene()
    for mode in (True, False):
        model.train(mode)
        losses = model.losses(pixels, targets, **given_to(model))
        assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
        found = model.detect(pixels, **given_to(model))
        assert [set(image) for image in found] == [{"boxes", "scores", "labels"}] * 2


def torchvision_call(build: Build) -> None:
    """The model is called like torchvision's: losses in training mode, boxes within the images in evaluation mode."""
    model = build(0)
    images = [torch.rand(3, 70, 110), torch.rand(3, 120, 50)]
    targets = [{"boxes": torch.tensor([[5.0, 5.0, 60.0, 50.0]]), "labels": torch.tensor([2])}] * 2
    losses = model.train()(images, targets, **given_to(model))
    assert isinstance(losses, dict) and all(loss.requires_grad for loss in losses.values())
    with torch.no_grad():
        for found, image in zip(model.eval()(images, **given_to(model)), images, strict=True):
            assert isinstance(found, dict)
            assert found["boxes"].shape == (len(found["scores"]), 4) and found["labels"].dtype == torch.int64
            assert bool((found["boxes"][:, 2] <= image.shape[2] + 1e-3).all())
            assert bool((found["boxes"][:, 3] <= image.shape[1] + 1e-3).all())


def an_image_alone_is_detected_as_in_a_batch(build: Build) -> None:
    """Detections of an image do not depend on the other images of the batch."""
    model = with_postprocess_options(build(0).eval(), score_threshold=0.0)  # scores of random weights are low
    pixels, _ = scene(3)
    for i, found in enumerate(model.detect(pixels, **given_to(model))):
        alone = model.detect(pixels[i : i + 1], **given_to(model, 1))[0]
        assert len(found["scores"]) > 0
        torch.testing.assert_close(alone["scores"][:20], found["scores"][:20], rtol=1e-4, atol=1e-5)


def state_dict_and_options_rebuild_the_model(build: Build) -> None:
    """Name, options and weights rebuild the model with equal losses."""
    model = build(1)
    again = create_model(model.name, num_classes=model.num_classes, **model.options)
    again.load_state_dict(model.state_dict())
    pixels, targets = scene()
    losses = []
    for one in (model.eval(), again.eval()):
        torch.manual_seed(2)  # of what is sampled
        losses.append(one.losses(pixels, targets, **given_to(one)))
    for key, loss in losses[0].items():
        assert torch.equal(loss, losses[1][key])
    assert again.preprocess == model.preprocess


def half_precision_step(build: Build) -> None:
    """Losses in bfloat16 autocast are finite, in float32."""
    model = build(0).train()
    pixels, targets = scene()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.losses(pixels, targets, **given_to(model))
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


CHECKS = (
    every_parameter_gets_a_finite_gradient,
    losses_whatever_the_mode_and_detections_whatever_the_mode,
    torchvision_call,
    an_image_alone_is_detected_as_in_a_batch,
    state_dict_and_options_rebuild_the_model,
    half_precision_step,
)
