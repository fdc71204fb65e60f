"""Published backbone weights under other names than timm's."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor
from torchvision.models import mobilenet_v2

from poise.nn.backbones.published_names import timm_names
from poise.nn.backbones.timm_features import Backbone


def test_mobilenet_gives_the_features_of_torchvision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = mobilenet_v2(weights=None)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # weights, biases and statistics of which no two are alike
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                torch.nn.init.normal_(tensor, 0.5, 0.2)  # type: ignore[arg-type]
    theirs.eval()
    torch.save(theirs.state_dict(), tmp_path / "mobilenet_v2.pth")
    ours = Backbone("mobilenetv2_100", weights=tmp_path / "mobilenet_v2.pth").eval()
    pixels = torch.randn(1, 3, 64, 96)
    maps, x = [], pixels
    for number, layer in enumerate(theirs.features):
        x = layer(x)
        if number in (6, 13, 17):  # the last blocks of strides 8, 16 and 32
            maps.append(x)
    for found, expected in zip(ours(pixels), maps, strict=True):
        torch.testing.assert_close(found, expected)


def lite_keys() -> list[str]:
    """Names of the EfficientNet-Lite0 port, in the order of its modules."""
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    keys = ["_conv_stem.weight", *(f"_bn0.{name}" for name in norm)]
    for block in range(16):
        layers = [("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        for conv, batch_norm in [("_expand_conv", "_bn0"), *layers] if block else layers:
            keys += [f"_blocks.{block}.{conv}.weight", *(f"_blocks.{block}.{batch_norm}.{name}" for name in norm)]
    return [*keys, "_conv_head.weight", *(f"_bn1.{name}" for name in norm), "_fc.weight", "_fc.bias"]


def test_efficientnet_lite_fills_every_tensor_in_its_order() -> None:
    """Both networks list their modules in the order of computation, so tensors correspond by their number."""
    theirs = timm.create_model("tf_efficientnet_lite0").state_dict()
    keys = lite_keys()
    assert len(keys) == len(theirs) == 296
    found = timm_names(dict(zip(keys, theirs.values(), strict=True)))
    expected = {
        name: tensor for name, tensor in theirs.items() if not name.startswith(("conv_head", "bn2", "classifier"))
    }
    assert list(found) == list(expected)
    assert all(found[name] is expected[name] for name in expected)


def test_other_files_stay_as_they_are() -> None:
    state: dict[str, Tensor] = {"layer1.0.conv1.weight": torch.zeros(1)}
    assert timm_names(state) == state


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(mobilenet_v2(weights=None).state_dict(), tmp_path / "mobilenet_v2.pth")
    with pytest.raises(ValueError, match="do not fit"):
        Backbone("resnet18", weights=tmp_path / "mobilenet_v2.pth")
