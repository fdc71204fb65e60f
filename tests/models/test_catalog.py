"""Names and options of models, and the messages for wrong ones."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from poise.models import create_model, list_models
from poise.models.files import load_model, save_model
from poise.models.groups import NMSOptions
from poise.models.options import flat_options, option_types
from poise.nn.backbones.timm_features import Backbone


def test_listing() -> None:
    assert {"fcos_r50_fpn", "atss_r18_fpn", "retinanet_r101_fpn", "gfl_r34_fpn"} <= set(list_models())
    assert all(name.startswith("atss_") for name in list_models("atss*")) and list_models("nothing*") == []


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"name": "atss_r5_fpn"}, "did you mean 'atss_r50_fpn'"),
        ({"name": "atss_r18_fpn", "chanels": 64}, "did you mean 'channels'"),
        ({"name": "atss_r18_fpn", "num_classes": 0}, "num_classes=0"),
        ({"name": "atss_r18_fpn", "topk": 0}, "topk=0"),
        ({"name": "atss_r18_fpn", "image_size": (1, 2, 3)}, "image_size"),
        ({"name": "atss_r18_fpn", "backbone_weights": "nowhere.pth"}, "no such file"),
        ({"name": "fcos_r18_fpn", "radius": -1.0}, "radius=-1.0"),
        ({"name": "fcos_r18_fpn", "channels": 0}, "channels=0 of 'fcos_r18_fpn' must be at least 1"),
        ({"name": "fcos_r18_fpn", "channels": "64"}, "channels='64' of 'fcos_r18_fpn' must be a whole number"),
        ({"name": "fcos_r18_fpn", "depth": -1}, "depth=-1"),
        ({"name": "fcos_r18_fpn", "depth": True}, "depth=True"),
        ({"name": "fcos_r18_fpn", "radius": float("nan")}, "radius=nan"),
        ({"name": "fcos_r18_fpn", "caffe": 1}, "must be true or false"),
        ({"name": "fcos_r18_fpn", "frozen_stages": 9}, "frozen_stages=9.*has 4 stages"),
        ({"name": "fcos_r18_fpn", "frozen_stages": -2}, "frozen_stages=-2.*at least -1"),
        ({"name": "gfl_r18_fpn", "bins": 1}, "bins=1"),
        ({"name": "yolox_r18_fpn", "l1_epoch": -1}, "l1_epoch=-1"),
        ({"name": "tood_r18_fpn", "depth": 0}, "depth=0"),
        ({"name": "ota_r18_fpn", "iterations": 0}, "iterations=0"),
        ({"name": "ota_r18_fpn", "temperature": 0.0}, "temperature=0.0"),
    ],
)
def test_wrong_arguments_are_explained(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        create_model(**arguments)  # type: ignore[arg-type]


def test_backbone_weights_from_a_file(tmp_path: Path) -> None:
    source = create_model("atss_r18_fpn", channels=32, num_classes=2)
    body = source.network.backbone.body.state_dict()
    torch.save({**body, "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}, tmp_path / "resnet18.pth")
    model = create_model("gfl_r18_fpn", channels=32, num_classes=2, backbone_weights=tmp_path / "resnet18.pth")
    for key, value in model.network.backbone.body.state_dict().items():
        assert torch.equal(value, body[key]), key
    assert not model.train().network.backbone.body.bn1.training  # pretrained: as published
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="do not fit"):
        create_model("gfl_r18_fpn", channels=32, backbone_weights=tmp_path / "other.pth")


def test_caffe_style_moves_the_stride_and_the_colors() -> None:
    model = create_model("fcos_r50_fpn", caffe=True)
    block = model.network.backbone.body.layer2[0]
    assert block.conv1.stride == (2, 2) and block.conv2.stride == (1, 1)
    assert model.preprocess.bgr and not block.bn1.weight.requires_grad


@pytest.mark.parametrize("stages, wanted", [(-1, []), (0, ["conv1", "bn1"]), (2, ["conv1", "bn1", "layer1", "layer2"])])
def test_frozen_stages(stages: int, wanted: list[str]) -> None:
    body = create_model("atss_r18_fpn", channels=32, frozen_stages=stages).network.backbone.body
    frozen = {name.split(".")[0] for name, parameter in body.named_parameters() if not parameter.requires_grad}
    assert frozen == set(wanted)


@pytest.mark.parametrize("stages, wanted", [(-1, 0), (0, 3), (1, 4), (2, 5), (4, 9)])
def test_frozen_stages_inside_another_module(stages: int, wanted: int) -> None:
    """timm keeps the stages of MobileNets and EfficientNets in one module ``blocks``; strides 4 to 32 end 4 stages."""
    body = create_model(
        "atss_r18_fpn", channels=32, backbone="mobilenetv2_100", frozen_stages=stages
    ).network.backbone.body
    modules = ["conv_stem.", "bn1.", *(f"blocks.{k}." for k in range(7))][:wanted]
    parameters = dict(body.named_parameters())
    frozen = {name for name in parameters if not parameters[name].requires_grad}
    assert frozen == {name for name in parameters if name.startswith(tuple(modules))}


def test_pretrained_backbones_with_unknown_stages_are_not_frozen() -> None:
    backbone = Backbone("hrnet_w18_small", (3, 4, 5))
    backbone.freeze_as_pretrained()
    assert backbone.frozen_stages == -1 and all(parameter.requires_grad for parameter in backbone.parameters())
    with pytest.raises(ValueError, match="no module 'stage1', so that only -1"):
        Backbone("hrnet_w18_small", (3, 4, 5), frozen_stages=1)


@pytest.mark.parametrize(
    "backbone, words", [("nonsense", "Unknown model"), ("vit_tiny_patch16_224", r"no maps of stride \[8, 32\]")]
)
def test_backbones_that_cannot_serve(backbone: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        create_model("atss_r18_fpn", backbone=backbone)


def test_without_a_network_the_cure_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="could not be fetched.*'none'"):
        create_model("atss_r18_fpn", backbone_weights="imagenet")
    with pytest.raises(ValueError, match="no option 'topkk', did you mean 'topk'"):  # before anything is fetched
        create_model("atss_r18_fpn", backbone_weights="imagenet", assigner="atss(topkk=9)")


@pytest.mark.parametrize(
    ("name", "options", "address"),
    [
        ("atss_r18_fpn", {}, "https://huggingface.co/timm/resnet18.tv_in1k/resolve/main/model.safetensors"),
        ("nanodet_plus_m_320", {}, "https://download.pytorch.org/models/shufflenetv2_x1-5666bf0f80.pth"),
        ("dino_5scale_swin_t", {}, "swin_tiny_patch4_window7_224.ms_in1k/resolve/main/model.safetensors"),
    ],
)
def test_an_unreachable_network_is_one_quick_message(
    name: str, options: dict[str, Any], address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried: list[object] = []

    def refuse(*arguments: object, **more: object) -> None:
        tried.append(arguments)
        raise OSError("the network is off")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    with pytest.raises(ValueError) as caught:
        create_model(name, backbone_weights="imagenet", **options)
    assert len(tried) == 1, "one attempt, without repetitions"
    assert address in str(caught.value) and "network is off" in str(caught.value)
    assert "--model.backbone-weights none" in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_saved_model_trains_on_as_it_was_trained(tmp_path: Path) -> None:
    """What was frozen because of its weights stays frozen after a reload without them."""
    source = create_model("atss_r18_fpn", channels=32, num_classes=2)
    torch.save(source.network.backbone.body.state_dict(), tmp_path / "body.pth")
    model = create_model("atss_r18_fpn", channels=32, num_classes=2, backbone_weights=tmp_path / "body.pth")
    for saved, rests in ((source, False), (model, True)):
        save_model(saved, tmp_path / "model.pt")
        body = load_model(tmp_path / "model.pt").train().network.backbone.body
        assert body.bn1.training != rests and body.layer1[0].conv1.weight.requires_grad != rests


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    save_model(create_model("fcos_r18_fpn", backbone_weights=None), tmp_path / "model.pt")
    before = torch.get_rng_state()
    load_model(tmp_path / "model.pt")
    assert torch.equal(torch.get_rng_state(), before)


def test_options_of_a_group_are_options_of_the_builder() -> None:
    """Each is given by its own name, keeps the defaults of this builder, and is refused by position."""

    @flat_options
    def build(
        num_classes: int, *, nms: NMSOptions = NMSOptions(nms_threshold=0.5), topk: int = 9, **rest: float
    ) -> tuple[int, NMSOptions, int, dict[str, float]]:
        return num_classes, nms, topk, rest

    assert list(inspect.signature(build).parameters) == [
        *("num_classes", "score_threshold", "nms_threshold", "max_detections", "nms_similarity", "topk")
    ]
    assert option_types(build)["max_detections"] is int
    made = build(3, max_detections=7, topk=1, alpha=2.0)
    assert made == (3, NMSOptions(nms_threshold=0.5, max_detections=7), 1, {"alpha": 2.0})
    assert build(3) == (3, NMSOptions(nms_threshold=0.5), 9, {})  # nothing is left over from the call before
    with pytest.raises(TypeError):
        build(3, 0.05)  # type: ignore[call-arg]
