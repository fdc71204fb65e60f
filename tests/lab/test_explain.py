"""The loss weights of the lab are those of the losses: the losses are recomputed from them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from poise import boxes as geometry
from poise import lab, losses
from poise.models import create_model
from poise.structures import GroundTruth, Progress

TARGETS = [
    {"boxes": torch.tensor([[6.0, 8, 70, 60], [40, 30, 90, 90], [50, 50, 62, 64]]), "labels": torch.tensor([0, 1, 1])},
    {"boxes": torch.tensor([[20.0, 20, 44, 80]]), "labels": torch.tensor([2])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
]


def pixels() -> Tensor:
    return torch.randn(3, 3, 96, 96, generator=torch.Generator().manual_seed(1))


def explained(name: str, **options: object) -> lab.Explanation:
    torch.manual_seed(0)
    model = create_model(name, 3, image_size=96, **options).eval()
    return lab.explain(model, pixels(), TARGETS, seed=3)


# -ln p and -ln(1 - p) of every prior and class, written down for each kind of score
def of_logits(stage: lab.Stage) -> tuple[Tensor, Tensor]:
    logits = stage.predictions.logits
    return softplus(-logits), softplus(logits)


def of_scores(stage: lab.Stage) -> tuple[Tensor, Tensor]:
    scores = stage.predictions.scores().double()
    return -scores.log(), -torch.log1p(-scores)


def of_softmax(stage: lab.Stage) -> tuple[Tensor, Tensor]:
    logs = stage.predictions.all_logits().log_softmax(-1)
    return -logs[..., :-1], -logs[..., -1]


def class_loss(stage: lab.Stage, form: Callable[[lab.Stage], tuple[Tensor, Tensor]]) -> Tensor:
    positive, negative = form(stage)
    weights = stage.weights
    if weights.background is not None:
        return (weights.positive * positive).sum() + (weights.background * negative).sum()
    return (weights.positive * positive).sum() + (weights.negative * negative).sum()


def objects_of(stage: lab.Stage, truth: GroundTruth) -> Tensor:
    return truth.boxes.gather(1, stage.index.clamp(min=0)[..., None].expand(-1, -1, 4))


def giou_loss(stage: lab.Stage, truth: GroundTruth) -> Tensor:
    loss = 1 - geometry.giou(stage.boxes, objects_of(stage, truth))
    return (stage.regression * torch.where(stage.regression > 0, loss, 0.0)).sum()


DENSE = {  # the name: form of the score, term of the classes, term of the box (GIoU where there is one)
    "fcos_r18_fpn": (of_logits, "loss_cls", "loss_bbox"),
    "atss_r18_fpn": (of_logits, "loss_cls", "loss_bbox"),
    "gfl_r18_fpn": (of_logits, "loss_cls", "loss_bbox"),
    "gflv2_r18_fpn": (of_scores, "loss_cls", "loss_bbox"),
    "tood_r18_fpn": (of_scores, "loss_cls", "loss_bbox"),
    "vfnet_r18_fpn": (of_logits, "loss_cls", "loss_bbox_rf"),
    "paa_r18_fpn": (of_logits, "loss_cls", "loss_bbox"),
    "ota_r18_fpn": (of_logits, "loss_cls", "loss_bbox"),
    "retinanet_r18_fpn": (of_logits, "loss_cls", ""),
    "foveabox_r18_fpn": (of_logits, "loss_cls", ""),
    "reppoints_r18_fpn": (of_logits, "loss_cls", ""),
}
SMALL = {"channels": 32, "depth": 1}


def options_of(name: str) -> dict[str, int]:
    import inspect

    from poise.models.catalog import NAMES

    known = inspect.signature(NAMES[name].builder).parameters
    return {option: value for option, value in SMALL.items() if option in known}


@pytest.mark.parametrize("name", DENSE)
def test_dense_losses_are_recomputed_from_their_weights(name: str) -> None:
    form, class_term, box_term = DENSE[name]
    explanation = explained(name, **options_of(name))
    stage = explanation.stages["dense"]
    wanted = explanation.losses[class_term]
    assert wanted > 0
    assert class_loss(stage, form).float() == pytest.approx(float(wanted), rel=1e-3)
    if box_term:
        assert giou_loss(stage, explanation.truth) == pytest.approx(float(explanation.losses[box_term]), rel=1e-4)


def test_offset_losses_are_recomputed_from_their_weights() -> None:
    explanation = explained("retinanet_r18_fpn", **SMALL)
    stage = explanation.stages["dense"]
    wanted = geometry.DeltaCoder().encode(stage.priors.boxes, objects_of(stage, explanation.truth))
    loss = (stage.predictions.deltas - wanted).abs().sum(2)
    rebuilt = (stage.regression * torch.where(stage.regression > 0, loss, 0.0)).sum()
    assert rebuilt == pytest.approx(float(explanation.losses["loss_bbox"]), rel=1e-4)


def test_nanodet_plus_and_its_guide() -> None:
    explanation = explained("nanodet_plus_m_320")
    for stage, prefix in (("dense", ""), ("guide", "aux_")):
        weights = explanation.stages[stage]
        found = class_loss(weights, of_logits)
        assert found == pytest.approx(float(explanation.losses[f"{prefix}loss_qfl"]), rel=1e-3)
        box = giou_loss(weights, explanation.truth)
        assert box == pytest.approx(float(explanation.losses[f"{prefix}loss_bbox"]), rel=1e-4)


def test_dual_weighting() -> None:
    explanation = explained("dw_r18_fpn", **options_of("dw_r18_fpn"))
    stage, truth = explanation.stages["dense"], explanation.truth
    logits, quality = stage.predictions.logits, stage.predictions.quality[..., None]
    positive = (stage.weights.positive * -(logsigmoid(logits) + logsigmoid(quality))).sum()
    assert positive == pytest.approx(float(explanation.losses["loss_cls_pos"]), rel=1e-4)
    rest = -torch.log1p(-(logits.sigmoid() * quality.sigmoid()))
    assert (stage.weights.negative * rest).sum() == pytest.approx(float(explanation.losses["loss_cls_neg"]), rel=1e-4)
    box = torch.zeros(())
    for i in range(3):
        for g in range(int(truth.valid[i].sum())):
            view = stage.object_view(i, g)
            box = box + (view.regression * (1 - geometry.giou(stage.boxes[i], truth.boxes[i, g]))).sum()
    assert box == pytest.approx(float(explanation.losses["loss_loc"]), rel=1e-4)


@pytest.mark.parametrize(
    "name, beta, positive_term, negative_term",
    [
        ("autoassign_r18_fpn", 5.0, "loss_pos", "loss_neg"),
        ("freeanchor_r18_fpn", 0.75, "positive_bag_loss", "negative_bag_loss"),
    ],
)
def test_bags(name: str, beta: float, positive_term: str, negative_term: str) -> None:
    """-ln of each bag's mean likelihood, with the shown weights as those of the mean."""
    explanation = explained(name, **options_of(name))
    stage, truth = explanation.stages["dense"], explanation.truth
    scores, count = stage.predictions.scores(), 4
    coder = geometry.DeltaCoder((0.1, 0.1, 0.2, 0.2))
    total = torch.zeros(())
    for i in range(3):
        for g in range(int(truth.valid[i].sum())):
            view = stage.object_view(i, g)
            if name.startswith("auto"):
                box = 1 - geometry.giou(stage.boxes[i], truth.boxes[i, g])
            else:
                wanted = coder.encode(stage.priors.boxes[0], truth.boxes[i, g].expand(stage.boxes.shape[1], 4))
                box = losses.smooth_l1(stage.predictions.deltas[i], wanted, 0.11).sum(1)
            total = total - (view.positive / view.positive.sum() * view.score * (-beta * box).exp()).sum().log()
    factor = {"a": 0.25, "f": 0.5}[name[0]]
    assert total * factor / count == pytest.approx(float(explanation.losses[positive_term]), rel=1e-4)
    assert stage.weights.pairs.sum() == pytest.approx(factor, rel=1e-5)  # every object counts the same
    negative = (stage.weights.negative * -torch.log1p(-scores)).sum()
    assert negative == pytest.approx(float(explanation.losses[negative_term]), rel=1e-4)


@pytest.mark.parametrize("name", ["faster_rcnn_r18_fpn", "libra_faster_rcnn_r18_fpn"])
def test_both_stages_of_region_detectors(name: str) -> None:
    explanation = explained(name, channels=16, hidden=32)
    first, second = explanation.stages["rpn"], explanation.stages["rcnn"]
    assert class_loss(first, of_logits) == pytest.approx(float(explanation.losses["loss_rpn_cls"]), rel=1e-4)
    assert class_loss(second, of_softmax) == pytest.approx(float(explanation.losses["loss_cls"]), rel=1e-4)
    assert 3 < first.in_loss.sum() <= 3 * 256
    assert torch.equal(first.positive + first.negative > 0, first.in_loss)
    sampled = int(second.in_loss.sum())
    assert float((second.positive + second.negative).sum()) == pytest.approx(1)  # the mean over sampled regions
    assert float(second.negative[0].max()) == pytest.approx(1 / sampled)


def test_objectness_of_yolox_is_a_background_weight() -> None:
    explanation = explained("yolox_r18_fpn", **options_of("yolox_r18_fpn"))
    stage = explanation.stages["dense"]
    positive, negative = of_logits(stage)
    entropy = (stage.weights.positive * positive + stage.weights.negative * negative).sum()
    assert entropy == pytest.approx(float(explanation.losses["loss_cls"]), rel=1e-4)
    quality = stage.predictions.quality
    count = (stage.index >= 0).sum().clamp(min=1)
    objectness = (stage.weights.background * softplus(quality)).sum() + softplus(-quality)[
        stage.index >= 0
    ].sum() / count
    assert objectness == pytest.approx(float(explanation.losses["loss_obj"]), rel=1e-4)


QUERIES = {"channels": 32, "hidden": 64, "queries": 20, "encoder_layers": 1, "decoder_layers": 2}
TINY = {"backbone": "test_byobnet", **QUERIES}
LAYERS = {"encoder": "enc_{}", "queries/1": "d0.{}", "queries": "{}", "denoising": "dn_{}"}
HEADS = {"faster_rcnn/queries": "{}_aux0", "atss/queries": "{}_aux1"}


def check_queries(explanation: lab.Explanation, stages: dict[str, str]) -> None:
    for name, term in stages.items():
        stage = explanation.stages[name]
        wanted = explanation.losses[term.format("loss_cls")]
        assert class_loss(stage, of_logits).float() == pytest.approx(float(wanted), rel=1e-4), name
        wanted = explanation.losses[term.format("loss_iou")]
        assert giou_loss(stage, stage.truth) == pytest.approx(float(wanted), rel=1e-4), name
        assert wanted > 0 and stage.priors.boxes.shape[-1] == 4


@pytest.mark.parametrize(
    "name, missing",
    [
        ("deformable_detr_r18", {"encoder", "denoising"}),
        ("deformable_detr_twostage_r18", {"denoising"}),
        ("dab_detr_r18", {"encoder", "denoising"}),
        ("dino_r18", set()),
    ],
)
def test_every_layer_of_a_decoder(name: str, missing: set[str]) -> None:
    explanation = explained(name, attention_heads=4, **TINY)
    stages = {stage: term for stage, term in LAYERS.items() if stage not in missing}
    assert set(explanation.stages) == set(stages)
    check_queries(explanation, stages)
    matched = explanation.stages["queries"]
    assert [int((matched.index[i] >= 0).sum()) for i in range(3)] == [3, 1, 0]  # one query for every object
    assert matched.object_view(0, 1).assigned.sum() == 1
    if "encoder" in stages and name != "dino_r18":
        encoder = explanation.stages["encoder"]  # every token, supervised as "some object" by the first class
        assert encoder.boxes.shape[1] > 20 and not encoder.weights.positive[..., 1:].any()
        assert torch.allclose(encoder.object_view(0, 1).score, encoder.predictions.logits[0, :, 0].sigmoid())


@pytest.mark.parametrize("name", ["co_deformable_detr_r18", "co_dino_5scale_r18"])
def test_auxiliary_heads_of_collaborative_training(name: str) -> None:
    explanation = explained(name, attention_heads=4, max_auxiliary_queries=40, **TINY)
    layers = {stage: term for stage, term in LAYERS.items() if stage in explanation.stages}
    assert len(layers) == (4 if "dino" in name else 3)
    check_queries(explanation, {**layers, **HEADS})
    stages, terms = explanation.stages, explanation.losses
    assert set(stages) == {*layers, *HEADS, "faster_rcnn/rpn", "faster_rcnn/rcnn", "atss/dense"}
    assert class_loss(stages["faster_rcnn/rpn"], of_logits) == pytest.approx(float(terms["loss_rpn_cls"]), rel=1e-4)
    assert class_loss(stages["faster_rcnn/rcnn"], of_softmax) == pytest.approx(float(terms["loss_cls0"]), rel=1e-4)
    assert class_loss(stages["atss/dense"], of_logits) == pytest.approx(float(terms["loss_cls1"]), rel=1e-3)
    assert giou_loss(stages["atss/dense"], explanation.truth) == pytest.approx(float(terms["loss_bbox1"]), rel=1e-4)


def test_shapes_and_views() -> None:
    explanation = explained("atss_r18_fpn", **SMALL)
    stage = explanation.stages["dense"]
    num_priors = stage.boxes.shape[1]
    for part in (stage.positive, stage.negative, stage.regression, stage.index):
        assert part.shape == (3, num_priors)
    assert stage.levels.bincount().tolist() == list(stage.priors.level_sizes)
    view = stage.object_view(0, 1)
    assert torch.equal(view.assigned, stage.index[0] == 1)
    assert view.positive[~view.assigned].sum() == 0 < view.positive.sum()
    parts = sum(stage.object_view(0, g).positive for g in range(3))
    assert torch.allclose(parts, stage.positive[0])
    image = stage.image_view(0)
    owner, overlap = image.best_overlap
    both = geometry.iou(stage.boxes[0][:, None], explanation.truth.boxes[0, :3])
    assert torch.allclose(overlap, both.amax(1))
    assert torch.equal(owner[overlap > 0], both.argmax(1)[overlap > 0])
    assert not stage.positive[2].any() and stage.negative[2].any()
    assert stage.image_view(2).best_overlap[0].eq(-1).all()
    assert image.objects_at_center.max() == 3  # the third object lies within the second and the first


def test_images_of_any_size_are_prepared_as_by_the_model() -> None:
    torch.manual_seed(0)
    model = create_model("fcos_r18_fpn", 3, image_size=96, **SMALL)
    images = [torch.rand(3, 48, 40), torch.rand(3, 60, 80)]
    targets = [{"boxes": torch.tensor([[2.0, 2, 30, 40]]), "labels": torch.tensor([1])} for _ in images]
    explanation = lab.explain(model, images, targets)
    model.train()
    wanted = model(images, targets)
    for name, value in wanted.items():
        assert explanation.losses[name] == pytest.approx(value.item(), rel=1e-4), name


def test_models_without_weights_are_refused() -> None:
    model = create_model("yolox_r18_fpn", 3, image_size=96)
    model.network.branch.criterion = lambda *_: {"loss": torch.zeros(())}
    with pytest.raises(lab.NoLossWeights, match="model without weights to explain"):
        lab.explain(model, pixels(), TARGETS)
    with pytest.raises(ValueError, match="3 images but 1 targets"):
        lab.explain(model, pixels(), TARGETS[:1], Progress())
