"""Heads that read features or boxes at predicted points: DW's boundary points, VarifocalNet's star."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import deform_conv2d

from poise.nn.heads.dual_weighting import BoundaryRefinement, DualWeightingHead, bilinear_sample
from poise.nn.heads.star import PlainConv, StarConv, StarHead, StarRefinement, distance_scales, star_offsets
from poise.nn.layers import point_grid, square_anchors
from poise.structures import Predictions, RefinedPredictions

STRIDES = (8, 16)


def maps() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(2, 16, 6, 8), torch.randn(2, 16, 3, 4)]


@pytest.mark.parametrize(("height", "width"), [(5, 7), (1, 1), (2, 1)])
def test_boundary_points_equal_the_originals_operator(height: int, width: int) -> None:
    """The original is a depthwise 1x1 deformable convolution of ones with four offset groups."""
    torch.manual_seed(0)
    boxes = torch.randn(2, 4, height, width) * 50
    moves = torch.randn(2, 4, 2, height, width) * 3
    rows = moves[:, :, 0] + torch.arange(height)[:, None]
    columns = moves[:, :, 1] + torch.arange(width)
    wanted = deform_conv2d(boxes, moves.flatten(1, 2), torch.ones(4, 1, 1, 1))
    torch.testing.assert_close(bilinear_sample(boxes, rows, columns), wanted, rtol=1e-4, atol=1e-3)


def test_a_refinement_that_moves_nothing_and_reads_equal_boxes_keeps_the_box() -> None:
    refinement = BoundaryRefinement(16)
    torch.nn.init.zeros_(refinement.offsets.weight)
    grid = point_grid((8,), 0.5)
    features = torch.randn(1, 16, 9, 9)
    priors = grid([features])
    centers = priors.centers[0].reshape(9, 9, 2)
    box = torch.tensor([20.0, 20.0, 52.0, 52.0])  # every prior predicts it
    distances = torch.stack((*(centers - box[:2]).unbind(2), *(box[2:] - centers).unbind(2)))[None].clamp(min=0)
    refined = refinement([features], [distances], [priors.centers[0]], (8,))[0][0]
    inside = ((centers > box[:2]) & (centers < box[2:])).all(2)
    torch.testing.assert_close(refined[:, inside], distances[0][:, inside], rtol=1e-4, atol=1e-3)


def test_refinement_changes_boxes_and_learns() -> None:
    for refinement in (None, BoundaryRefinement(16)):
        torch.manual_seed(0)
        head = DualWeightingHead(16, 3, point_grid(STRIDES, 0.5), refinement, depth=1)
        predictions = head(maps())
        assert predictions.boxes.shape == (2, 60, 4) and predictions.quality.shape == (2, 60)
        assert bool((predictions.boxes[..., 2:] >= predictions.boxes[..., :2]).all())
        predictions.boxes.sum().backward()
        assert head.box_distances.weight.grad is not None and bool(head.box_distances.weight.grad.any())


def test_the_center_prior_is_stored_but_not_trained() -> None:
    head = DualWeightingHead(16, 3, point_grid(STRIDES, 0.5), None, depth=1)
    assert head.center_prior.sigma.tolist() == [[pytest.approx(1.11)] * 2] * 3
    assert not any(parameter.requires_grad for parameter in head.center_prior.parameters())
    assert {"center_prior.mean", "center_prior.sigma"} <= set(head.state_dict())


def test_star_taps_lie_on_the_box() -> None:
    left, top, right, bottom = 1.5, 2.0, 3.0, 0.5
    distances = torch.tensor([left, top, right, bottom]).reshape(1, 4, 1, 1)
    offsets = star_offsets(distances, 0.1).reshape(9, 2)
    grid = torch.tensor([[y, x] for y in (-1.0, 0.0, 1.0) for x in (-1.0, 0.0, 1.0)])
    wanted = torch.tensor([[y, x] for y in (-top, 0.0, bottom) for x in (-left, 0.0, right)])
    torch.testing.assert_close(offsets + grid, wanted)


def test_the_star_passes_a_tenth_of_its_gradient_to_the_box() -> None:
    distances = torch.rand(1, 4, 2, 2, requires_grad=True)
    star_offsets(distances, 0.1).abs().sum().backward()
    part = distances.grad
    assert part is not None
    whole = distances.detach().clone().requires_grad_()
    star_offsets(whole, 1.0).abs().sum().backward()
    torch.testing.assert_close(part, whole.grad * 0.1)  # type: ignore[operator]


def star_head(star: bool, refine: bool) -> StarHead:
    torch.manual_seed(0)
    layer = StarConv if star else PlainConv
    refinement = StarRefinement(16, 2, layer(16)) if refine else None
    return StarHead(
        16,
        3,
        square_anchors(STRIDES),
        layer(16),
        refinement=refinement,
        depth=1,
        distance_scales=distance_scales(STRIDES),
    )


@pytest.mark.parametrize("star", [True, False])
@pytest.mark.parametrize("refine", [True, False])
def test_ablations_of_the_star_head(star: bool, refine: bool) -> None:
    head = star_head(star, refine)
    predictions = head(maps())
    assert type(predictions) is (RefinedPredictions if refine else Predictions)
    first = predictions.initial_boxes if isinstance(predictions, RefinedPredictions) else predictions.boxes
    (predictions.logits.square().sum() + predictions.boxes.sum() + first.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_the_refined_box_does_not_train_the_first_one_on_a_grid() -> None:
    head = star_head(star=False, refine=True)
    head(maps()).boxes.sum().backward()
    assert head.box_distances.weight.grad is None or not head.box_distances.weight.grad.any()


def test_any_finite_feature_gives_finite_boxes() -> None:
    predictions = star_head(True, True)([level * 1e6 for level in maps()])
    assert predictions.boxes.isfinite().all() and predictions.logits.isfinite().all()


def test_the_number_of_levels_must_agree() -> None:
    with pytest.raises(ValueError, match="1 distance scales for 2 levels"):
        StarHead(16, 3, square_anchors(STRIDES), StarConv(16), refinement=None, depth=1, distance_scales=(64,))
