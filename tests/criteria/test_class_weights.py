"""Class weights: the gradient is that of the loss with every class's terms multiplied by its weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from poise import create_model, losses
from poise.criteria import CenternessCriterion, RegionCriterion, SetCriterion
from poise.criteria.class_weights import ClassWeighted, scale_gradient, with_class_weights
from poise.engine.batch_size import forward_and_backward, generated_batch
from poise.engine.model import class_weights, weight_classes
from poise.losses import masked_sum
from poise.protocols import class_statistics
from poise.structures import Assignment, GroundTruth, Progress, QueryPredictions, RegionPredictions

WEIGHTS = torch.tensor([0.5, 3.0, 0.0])


def scene(seed: int = 0) -> tuple[GroundTruth, Assignment]:
    generator = torch.Generator().manual_seed(seed)
    targets = [{"boxes": torch.tensor([[0.0, 0, 20, 20], [10, 10, 50, 50]]), "labels": torch.tensor([0, 1])}] * 2
    truth = GroundTruth.collate(targets, [(64, 64)] * 2)
    index = torch.randint(0, 2, (2, 9), generator=generator)
    positive = torch.rand(2, 9, generator=generator) < 0.5
    ignored = ~positive & (torch.rand(2, 9, generator=generator) < 0.2)
    return truth, Assignment(index, positive, ignored, positive.float())


def queries(logits: torch.Tensor) -> QueryPredictions:
    boxes = torch.tensor([5.0, 5, 30, 30]).expand(2, 9, 4)
    return QueryPredictions(None, logits, boxes, boxes / 64)  # type: ignore[arg-type]


def gradient(loss: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    (result,) = torch.autograd.grad(loss, logits)
    return result


def test_the_gradient_is_multiplied_and_the_value_is_not() -> None:
    values = torch.randn(4, 3, requires_grad=True)
    scaled = scale_gradient(values, WEIGHTS)
    assert torch.equal(scaled, values)
    assert torch.equal(gradient((scaled * 2).sum(), values), 2 * WEIGHTS.expand(4, 3))


def test_sigmoid_losses_weight_the_terms_of_a_class() -> None:
    truth, assignment = scene()
    logits = torch.randn(2, 9, 3, requires_grad=True)
    criterion = SetCriterion()
    weighted = ClassWeighted(criterion, WEIGHTS)
    found = gradient(weighted(queries(logits), assignment, truth)["loss_cls"], logits)
    targets = criterion.targets(queries(logits), assignment, truth)
    literal = (losses.focal(logits, targets.class_targets) * WEIGHTS).sum(2)
    assert torch.allclose(found, gradient(masked_sum(literal, targets.class_weights), logits), atol=1e-7)
    assert float(found[..., 2].abs().max()) == 0
    plain = criterion(queries(logits), assignment, truth)
    assert all(torch.equal(value, plain[name]) for name, value in weighted(queries(logits), assignment, truth).items())
    own, reported = (one.weights(queries(logits), assignment, truth) for one in (criterion, weighted))
    assert torch.allclose(reported.positive, own.positive * WEIGHTS)
    assert torch.equal(reported.regression, own.regression)
    assert class_statistics(criterion) == {} and class_statistics(weighted) == {"class_weight": WEIGHTS}


def test_a_softmax_weights_regions_by_their_class() -> None:
    truth, assignment = scene(1)
    logits, background = torch.randn(2, 9, 3, requires_grad=True), torch.randn(2, 9, requires_grad=True)
    boxes = torch.tensor([5.0, 5, 30, 30]).expand(2, 9, 4)
    predictions = RegionPredictions(None, logits, boxes, background, torch.zeros(2, 9, 1, 4))  # type: ignore[arg-type]
    criterion: Any = RegionCriterion(None)  # type: ignore[arg-type]
    weighted = ClassWeighted(criterion, WEIGHTS)._weighted(predictions, assignment, truth)
    sampled = (~assignment.ignored).float()
    own = masked_sum(criterion.class_loss(weighted, assignment, truth), sampled)
    label = torch.where(assignment.positive, assignment.labels(truth), 3)
    weights = torch.cat((WEIGHTS, torch.ones(1)))
    every = torch.cat((logits, background[..., None]), -1)
    literal = cross_entropy(every.flatten(0, 1), label.flatten(), weights, reduction="none").reshape(2, 9)
    for tensor in (logits, background):
        expected = torch.autograd.grad((literal * sampled).sum(), tensor, retain_graph=True)[0]
        assert torch.allclose(torch.autograd.grad(own, tensor, retain_graph=True)[0], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["fcos_r18_fpn", "vfnet_r18_fpn", "faster_rcnn_r18_fpn", "deformable_detr_r18"])
def test_every_head_of_a_model_is_weighted(name: str) -> None:
    """With weights 1 nothing changes; with weights 0 no class logit has a gradient, in auxiliary heads as well."""
    torch.manual_seed(0)
    options = {"backbone": "test_byobnet"} if "detr" not in name else {}
    model = create_model(name, num_classes=3, backbone_weights=None, image_size=64, **options).train()
    batch = generated_batch(2, 3, height=64, width=64, device=torch.device("cpu"))

    def gradients() -> dict[str, torch.Tensor | None]:
        model.network.zero_grad(set_to_none=True)
        torch.manual_seed(1)
        forward_and_backward(model.network, batch)
        return {key: value.grad for key, value in model.network.named_parameters()}

    plain = gradients()
    weight_classes(model, torch.ones(3))
    assert all(torch.equal(a, b) for a, b in zip(gradients().values(), plain.values(), strict=True) if a is not None)
    model = create_model(name, num_classes=3, backbone_weights=None, image_size=64, **options).train()
    weight_classes(model, torch.zeros(3))
    torch.manual_seed(1)
    output = model.network(batch, Progress(0, 0))
    classes = [value for key, value in output.losses.items() if "cls" in key and "rpn" not in key]
    assert classes
    trained = [parameter for parameter in model.network.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(torch.stack(classes).sum(), trained, allow_unused=True)
    if name != "faster_rcnn_r18_fpn":  # there the background has the weight 1
        assert all(one is None or not one.abs().max() for one in found)


def test_proposals_have_no_classes() -> None:
    model = create_model("faster_rcnn_r18_fpn", num_classes=3, backbone_weights=None, image_size=64)
    weight_classes(model, WEIGHTS)
    wrapped = [type(m.criterion).__name__ for m in model.network.modules() if hasattr(m, "criterion")]
    assert sorted(wrapped) == ["ClassWeighted", "ProposalCriterion"]
    assert with_class_weights(CenternessCriterion(None), WEIGHTS).class_weights is WEIGHTS  # type: ignore[arg-type]


class Objects:
    labels = torch.tensor([0, 0, 0, 1, 1, 3]).numpy()
    crowd = torch.tensor([False] * 5 + [True]).numpy()
    ignore = torch.tensor([False] * 6).numpy()


class Images:
    class_names, objects = ("car", "van", "bus", "tram"), Objects


def test_weights_are_given_or_balanced() -> None:
    assert class_weights({"van": 2.5}, Images).tolist() == [1, 2.5, 1, 1]  # type: ignore[arg-type]
    assert class_weights("balanced", Images).tolist() == pytest.approx([5 / 6, 5 / 4, 1, 1])  # type: ignore[arg-type]
    found = class_weights("effective_number", Images, 0.9)  # type: ignore[arg-type]
    raw = [0.1 / (1 - 0.9**3), 0.1 / (1 - 0.9**2)]  # of 3 and 2 objects; the tram is a crowd
    assert found.tolist() == pytest.approx([2 * raw[0] / sum(raw), 2 * raw[1] / sum(raw), 1, 1])
    with pytest.raises(ValueError, match="no class 'vam', did you mean 'van'"):
        class_weights({"vam": 2.0}, Images)  # type: ignore[arg-type]
