"""NanoDet-Plus against the original: outputs of both heads, losses, gradients, sizes, checkpoints."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from support.parity import checkpoint, golden, gradient_norms, image, relative, targets
from torch import Tensor, nn
from torchvision.io import ImageReadMode, decode_image
from torchvision.ops import box_convert, box_iou

from poise.assign import DynamicSoftLabel
from poise.detection_model import DetectionModel
from poise.models import create_model
from poise.published import load_published
from poise.published.keys import rules_of, translate
from poise.structures import DistributionPredictions, Progress

MODELS = {"nanodet-plus-m_320": "nanodet_plus_m_320", "nanodet-plus-m-1.5x_416": "nanodet_plus_m_1_5x_416"}
SIZES = {"nanodet-plus-m_320": (1197924, 4330904), "nanodet-plus-m-1.5x_416": (2477792, 7962196)}  # without, with guide
WHILE_ATTACHED, LATE = Progress(0, 0), Progress(0, 10)

everything = pytest.mark.parametrize("stem", MODELS)


@lru_cache(maxsize=2)
def model_of(stem: str) -> DetectionModel:
    model = create_model(MODELS[stem])
    report = load_published(model, checkpoint(stem))
    assert not report.unexpected and not report.missing, str(report)
    return model.eval()  # the golden numbers were computed with running statistics


def raw(predictions: DistributionPredictions) -> Tensor:
    return torch.cat((predictions.logits, predictions.bins.flatten(2)), 2)[:, ::5]


@everything
def test_outputs_of_both_heads(stem: str) -> None:
    numbers, network = golden(stem), model_of(stem).network
    with torch.no_grad():
        maps = network.backbone(image(160, 192))
        pyramid = network.neck(maps)
        torch.testing.assert_close(raw(network.branch.head(pyramid)), numbers["head"], atol=1e-4, rtol=0)
        torch.testing.assert_close(raw(network.guide(maps, pyramid)), numbers["aux"], atol=1e-4, rtol=0)


@everything
@pytest.mark.parametrize("case", [0, 1])
def test_losses_and_gradients(stem: str, case: int) -> None:
    numbers, model = golden(stem), model_of(stem)
    model.zero_grad()
    losses = model.losses(image(160, 192), targets(numbers, case), WHILE_ATTACHED)
    for name, loss in losses.items():
        assert relative(loss.detach(), numbers[f"case{case}_{name}"]) < 1e-4, name
    total = torch.stack(list(losses.values())).sum()
    assert relative(total.detach(), numbers[f"case{case}_loss"]) < 1e-4
    total.backward()
    for key, norm in gradient_norms(stem, case).items():
        assert norm_of(model, key) == pytest.approx(norm, rel=1e-3, abs=1e-5), key


def norm_of(model: DetectionModel, original: str) -> float:
    """The gradient's norm of an original's parameter, which may be two of ours."""
    parts = [f"{original} (classes)", f"{original} (box_distances)"] if "head.gfl_cls" in original[:12] else [original]
    parameters, rules = dict(model.network.named_parameters()), rules_of(model.name) or []
    names = [translate(part, rules)[1] for part in parts]
    return math.hypot(*[float(parameters[str(name)].grad.norm()) for name in names])


@everything
def test_parameters_as_published(stem: str) -> None:
    network = model_of(stem).network
    whole = sum(parameter.numel() for parameter in network.parameters())
    guide = sum(parameter.numel() for parameter in network.guide.parameters())
    assert (whole - guide, whole) == SIZES[stem]


def test_the_guides_gradient_reaches_backbone_and_neck_only_until_the_detach_epoch() -> None:
    stem = "nanodet-plus-m_320"
    numbers, model = golden(stem), model_of(stem)
    reached = {}
    for progress in (WHILE_ATTACHED, Progress(0, 9), LATE):
        model.zero_grad()
        losses = model.losses(image(160, 192), targets(numbers, 0), progress)
        torch.stack([loss for name, loss in losses.items() if name.startswith("aux_")]).sum().backward()
        reached[progress.epoch] = {
            part: any(p.grad is not None and bool(p.grad.any()) for p in getattr(model.network, part).parameters())
            for part in ("backbone", "neck", "branch", "guide")
        }
    attached = {"backbone": True, "neck": True, "branch": False, "guide": True}
    assert reached[0] == reached[9] == attached
    assert reached[10] == {"backbone": False, "neck": False, "branch": False, "guide": True}


def test_both_heads_have_the_same_assignment() -> None:
    stem = "nanodet-plus-m_320"
    output = model_of(stem).step(image(160, 192), targets(golden(stem), 0), None, LATE)
    assert output.matches["dense"].assignment is output.matches["guide"].assignment
    assert bool(output.matches["guide"].assignment.positive.any())


def test_options_of_the_matching_cost() -> None:
    model = create_model("nanodet_plus_m_320", 3, iou_weight=1.5, distance_alpha=2.0, distance_beta=3.0)
    assert model.network.branch.assigner == DynamicSoftLabel(13, 1.5, 2.0, 3.0)
    assert create_model("nanodet_plus_m_320", 3).network.branch.assigner == DynamicSoftLabel()
    with pytest.raises(ValueError, match="distance_beta=3.0 belongs to the assigner of the model"):
        create_model("nanodet_plus_m_320", 3, distance_beta=3.0, assigner="atss")


def test_the_guides_neck_starts_as_the_necks_copy() -> None:
    network = create_model("nanodet_plus_m_320", num_classes=3).network
    for (name, own), copied in zip(network.neck.named_parameters(), network.guide.neck.parameters(), strict=True):
        assert torch.equal(own, copied) and own is not copied, name


def test_starting_values() -> None:
    network = create_model("nanodet_plus_m_0_5x_320", num_classes=3).network
    assert network.backbone.channels == (48, 96, 192)
    assert all(
        float((norm.bias.detach() - 1e-4).abs().max()) < 1e-9
        for norm in network.backbone.modules()
        if isinstance(norm, nn.BatchNorm2d)
    )
    assert network.backbone.conv1[0].weight.detach().std() == pytest.approx(1 / 3, rel=0.1)
    assert float(network.branch.head.classes[0].bias.detach()[0]) == pytest.approx(-4.595, abs=1e-3)
    assert not [module for module in network.modules() if isinstance(module, nn.ReLU)]


def test_another_number_of_classes_keeps_the_boxes() -> None:
    model = create_model("nanodet_plus_m_320", num_classes=3)
    with pytest.raises(ValueError, match="remap_classes=True"):
        load_published(model, checkpoint("nanodet-plus-m_320"))
    report = load_published(model, checkpoint("nanodet-plus-m_320"), remap_classes=True)
    assert (
        sorted({name.split(".")[2] for name in report.reinitialized}) == ["classes"] and len(report.reinitialized) == 10
    )
    wanted = checkpoint("nanodet-plus-m_320")["head.gfl_cls.2.weight"][80:]
    assert torch.equal(model.network.branch.head.box_distances[2].weight, wanted)


def test_the_weights_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="is it the checkpoint of 'nanodet_plus_m_320'"):
        load_published(create_model("nanodet_plus_m_320"), checkpoint("nanodet-plus-m-1.5x_416"))


def test_lightnings_checkpoints_give_the_averaged_weights() -> None:
    plain = checkpoint("nanodet-plus-m_320")
    state = {f"model.{key}": torch.zeros_like(value) for key, value in plain.items()}
    state |= {f"avg_model.{key}": value for key, value in plain.items()}
    model = create_model("nanodet_plus_m_320")
    report = load_published(model, {"epoch": 3, "pytorch-lightning_version": "1.9.5", "state_dict": state})
    assert not report.unexpected and not report.missing
    assert torch.equal(model.network.backbone.conv1[0].weight, plain["backbone.conv1.0.weight"])


def test_a_timm_network_as_backbone() -> None:
    model = create_model("nanodet_plus_m_320", num_classes=2, backbone="tf_efficientnet_lite0").eval()
    found = model.detect(torch.zeros(1, 3, 96, 128))
    assert set(found[0]) == {"boxes", "scores", "labels"}


@pytest.mark.parametrize("width", ["3x", ""])
def test_an_unknown_width_is_refused(width: str) -> None:
    with pytest.raises(ValueError, match="ShuffleNetV2 has no width"):
        create_model("nanodet_plus_m_320", backbone=f"shufflenetv2_{width}")


def test_published_weights_know_cocos_classes() -> None:
    model = create_model("nanodet_plus_m_320")
    load_published(model, checkpoint("nanodet-plus-m_320"))
    assert (model.class_names[0], model.class_names[79], model.category_ids[79]) == ("person", "toothbrush", 90)


def test_published_weights_find_the_objects_of_real_photographs(shared: Path) -> None:
    """Twenty photographs of COCO's training set: most large objects are found, and most confident finds are right."""
    model = create_model("nanodet_plus_m_320")
    report = load_published(model, shared / "weights" / "nanodet-plus-m_320.pth")
    assert not report.unexpected and {name.partition(".")[0] for name in report.missing} == {"guide"}
    content = json.loads((shared / "data/coco128/annotations/instances_train2017.json").read_text())
    found_large = large = right = confident = 0
    for record in sorted(content["images"], key=lambda record: int(record["id"]))[:20]:
        image = decode_image(str(shared / "data/coco128/train2017" / record["file_name"]), ImageReadMode.RGB)
        with torch.no_grad():
            detections = model.eval()([image])[0]
        objects = [one for one in content["annotations"] if one["image_id"] == record["id"]]
        boxes = box_convert(torch.tensor([one["bbox"] for one in objects]).reshape(-1, 4), "xywh", "xyxy")
        classes = torch.tensor([model.category_ids.index(one["category_id"]) for one in objects]).reshape(-1)
        fits = (box_iou(detections["boxes"], boxes) > 0.5) & (detections["labels"][:, None] == classes)
        sure = detections["scores"] > 0.5
        big = torch.tensor([one["area"] > 96**2 and not one["iscrowd"] for one in objects]).reshape(-1).bool()
        confident, right = confident + int(sure.sum()), right + int(fits[sure].any(1).sum())
        large, found_large = large + int(big.sum()), found_large + int(fits[:, big].any(0).sum())
    assert large > 15 and found_large / large > 0.8
    assert confident > 20 and right / confident > 0.8
