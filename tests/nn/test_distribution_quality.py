"""GFLv2's quality of a box, its losses and its checkpoints, against the article's words; and against GFL."""

from __future__ import annotations

import pytest
import torch
from support.scenes import predictions_of, truth_of
from torch import Tensor, nn
from torch.nn import functional

from poise import losses
from poise.assign import ATSS
from poise.criteria import DistributionCriterion
from poise.criteria.distribution import gflv2_criterion
from poise.models import create_model
from poise.nn.heads.distribution import DistributionHead, DistributionQuality
from poise.nn.layers import square_anchors
from poise.published import load_published
from poise.structures import DistributionPredictions, JointDistributionPredictions

SMALL = {"channels": 16, "depth": 1}


def quality_as_written(bins: Tensor, first: nn.Conv2d, second: nn.Conv2d) -> Tensor:
    """Quality (N,) in [0,1] of one image's bins (N,4,R): of each side the top 4 and their mean, then two layers."""
    qualities = []
    for prior in bins:
        statistics = []
        for side in prior:
            probabilities = (side - side.max()).exp()
            best = (probabilities / probabilities.sum()).sort(descending=True).values[:4]
            statistics += [*best, best.sum() / 4]
        hidden = (first.weight[:, :, 0, 0] @ torch.stack(statistics) + first.bias).clamp(min=0)
        qualities.append(torch.sigmoid(second.weight[0, :, 0, 0] @ hidden + second.bias[0]))
    return torch.stack(qualities)


def quality_network() -> DistributionQuality:
    torch.manual_seed(0)
    network = DistributionQuality()
    for parameter in network.parameters():  # far from its start, where all qualities are 1/2
        nn.init.normal_(parameter, std=0.5)
    return network.double()


def test_quality_and_its_gradients_as_written_out() -> None:
    network = quality_network()
    assert [tuple(p.shape) for p in network.parameters()] == [(64, 20, 1, 1), (64,), (1, 64, 1, 1), (1,)]
    bins = torch.randn(2, 30, 4, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3
    ours, theirs = (bins.clone().requires_grad_() for _ in range(2))
    found = network(ours).sigmoid()
    wanted = torch.stack([quality_as_written(image, network.layers[0], network.layers[2]) for image in theirs])
    torch.testing.assert_close(found, wanted.float(), rtol=1e-5, atol=1e-6)
    assert float(found.detach().std()) > 0.02
    weights = torch.randn(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    parameters = list(network.parameters())
    mine = torch.autograd.grad((found * weights).sum(), [ours, *parameters])
    reference = torch.autograd.grad((wanted * weights).sum(), [theirs, *parameters])
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_quality_focal_loss_of_products_as_written_out() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = (torch.randn(2, 40, 5, dtype=torch.float64, generator=generator) * 4).requires_grad_()
    quality = (torch.randn(2, 40, 1, dtype=torch.float64, generator=generator) * 4).requires_grad_()
    targets = torch.rand(2, 40, 5, dtype=torch.float64, generator=generator)
    targets = targets * (targets > 0.5)
    probability = logits.sigmoid() * quality.sigmoid()
    entropy = functional.binary_cross_entropy(probability, targets, reduction="none")
    wanted = (targets - probability).abs() ** 2 * entropy
    found = losses.joint_quality_focal(logits, quality, targets)
    torch.testing.assert_close(found, wanted)
    mine, reference = (torch.autograd.grad(loss.sum(), [logits, quality]) for loss in (found, wanted))
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("size", [30.0, 200.0, 1e4])
def test_scores_that_round_to_nothing_or_one_keep_finite_losses_and_gradients(size: float) -> None:
    signs = torch.cartesian_prod(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([-1.0, 0.0, 1.0]))
    logits, quality = (part.clone().requires_grad_() for part in (size * signs).unbind(1))
    for target in (0.0, 0.4, 1.0):
        loss = losses.joint_quality_focal(logits, quality, torch.full_like(logits, target))
        gradients = torch.autograd.grad(loss.sum(), [logits, quality])
        assert loss.isfinite().all() and all(gradient.isfinite().all() for gradient in gradients)


def test_a_quality_of_one_is_gfl() -> None:
    """Losses and gradients of the criterion, where what multiplies the classes is 1."""
    truth = truth_of([6, 0], 4)
    plain = predictions_of(DistributionPredictions, 2, 4)
    assert isinstance(plain, DistributionPredictions)
    leaves = [plain.logits.requires_grad_(), plain.boxes.requires_grad_(), plain.bins.requires_grad_()]
    highest = torch.full(plain.logits.shape[:2], 1e3)
    joint = JointDistributionPredictions(plain.priors, plain.logits, plain.boxes, bins=plain.bins, quality=highest)
    torch.testing.assert_close(joint.scores(), plain.scores())
    assignment = ATSS(5)(plain, truth)
    found, wanted = gflv2_criterion()(joint, assignment, truth), DistributionCriterion()(plain, assignment, truth)
    assert found.keys() == wanted.keys()
    for name, loss in wanted.items():
        torch.testing.assert_close(found[name], loss, rtol=1e-5, atol=1e-7)
        mine, reference = (torch.autograd.grad(value, leaves, allow_unused=True) for value in (found[name], loss))
        for a, b in zip(mine, reference, strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_a_model_whose_quality_is_one_is_gfl() -> None:
    """The same weights, and a quality that is always 1: the same losses and detections."""
    torch.manual_seed(5)
    gfl, gflv2 = (create_model(f"{family}_mnv3s_fpn", 3, **SMALL).eval() for family in ("gfl", "gflv2"))
    missing = gflv2.network.load_state_dict(gfl.network.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all(key.startswith("branch.head.quality.") for key in missing.missing_keys)
    layers = gflv2.network.branch.head.quality.layers
    nn.init.zeros_(layers[2].weight)
    nn.init.constant_(layers[2].bias, 100.0)
    pixels = torch.randn(1, 3, 64, 64)
    targets = [{"boxes": torch.tensor([[4.0, 6.0, 40.0, 50.0]]), "labels": torch.tensor([2])}]
    found, wanted = gflv2.losses(pixels, targets), gfl.losses(pixels, targets)
    for name, loss in wanted.items():
        torch.testing.assert_close(found[name], loss)
    for a, b in zip(gflv2.detect(pixels), gfl.detect(pixels), strict=True):
        torch.testing.assert_close(a["boxes"], b["boxes"])
        torch.testing.assert_close(a["scores"], b["scores"])


def test_the_quality_teaches_the_distributions() -> None:
    """No detaching: the class loss reaches the regression tower through the quality."""
    torch.manual_seed(6)
    model = create_model("gflv2_mnv3s_fpn", 3, **SMALL).train()
    targets = [{"boxes": torch.tensor([[4.0, 6.0, 40.0, 50.0]]), "labels": torch.tensor([1])}] * 2
    model.losses(torch.randn(2, 3, 64, 64), targets)["loss_cls"].backward()
    assert float(model.network.branch.head.box_distances.weight.grad.abs().sum()) > 0


def test_published_names_fill_the_whole_model() -> None:
    """The names of the authors' checkpoints: GFL's, and ``reg_conf`` with the shapes of its two 1x1 convolutions."""
    from support.parity import checkpoint

    state = dict(checkpoint("gfl_r50"))
    shapes = {"0.weight": (64, 20, 1, 1), "0.bias": (64,), "2.weight": (1, 64, 1, 1), "2.bias": (1,)}
    state |= {f"bbox_head.reg_conf.{key}": torch.rand(shape) for key, shape in shapes.items()}
    model = create_model("gflv2_r50_fpn")
    report = load_published(model, state)
    assert not report.unexpected and not report.missing, str(report)
    assert torch.equal(model.network.branch.head.quality.layers[2].weight, state["bbox_head.reg_conf.2.weight"])


def test_more_probabilities_than_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="reg_topk=4 must not be larger than bins=3"):
        DistributionHead(16, 3, square_anchors((8,)), bins=3, quality=DistributionQuality())
    with pytest.raises(ValueError, match="reg_topk=9 must not be larger than bins=8"):
        create_model("gflv2_mnv3s_fpn", 3, **SMALL, bins=8, reg_topk=9)


def test_scores_are_the_product() -> None:
    joint = predictions_of(JointDistributionPredictions, 1, 7)
    assert isinstance(joint, JointDistributionPredictions)
    torch.testing.assert_close(joint.threshold_scores(), joint.logits.sigmoid() * joint.quality.sigmoid()[..., None])
