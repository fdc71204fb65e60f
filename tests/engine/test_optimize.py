"""Parameter groups against the rules of the published recipes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from poise.engine.optimize import make_optimizer, parameter_groups, set_rate
from poise.models import create_model
from poise.recipes import OptimizerSettings, get_recipe


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.neck = nn.ModuleDict({"conv_offset": nn.Conv2d(4, 4, 1), "norm": nn.GroupNorm(2, 4)})
        self.branch = nn.ModuleDict({"cls": nn.Conv2d(4, 2, 1), "sampling_offsets": nn.Linear(4, 4)})
        self.level = nn.Parameter(torch.zeros(3))
        self.norm = nn.LayerNorm(4)


def treatment(settings: OptimizerSettings, network: nn.Module | None = None) -> dict[str, tuple[float, float]]:
    groups = parameter_groups(network or Network(), settings)
    return {name: (g["lr_multiplier"], g["weight_decay"]) for g in groups for name in g["names"]}


def test_fcos_and_varifocalnet_rules() -> None:
    found = treatment(OptimizerSettings(weight_decay=1e-4, bias_lr_multiplier=2, bias_decay_multiplier=0))
    assert found["branch.cls.bias"] == (2, 0)
    assert found["backbone.0.bias"] == (2, 0)
    assert found["branch.cls.weight"] == (1, 1e-4)
    assert found["backbone.1.bias"] == (1, 1e-4), "mmcv 1.x decays the biases of norm layers"
    assert found["neck.norm.bias"] == found["norm.bias"] == (1, 1e-4)
    assert found["neck.conv_offset.bias"] == (1, 1e-4), "the offset convolution of a deformable one is left alone"
    assert found["level"] == (1, 1e-4)


def test_dual_weighting_rule() -> None:
    found = treatment(OptimizerSettings(weight_decay=1e-4, norm_decay_multiplier=0))
    norms = {"backbone.1.weight", "backbone.1.bias", "neck.norm.weight", "neck.norm.bias", "norm.weight", "norm.bias"}
    assert {name for name, (_, decay) in found.items() if decay == 0} == norms
    assert all(rate == 1 for rate, _ in found.values())


def test_detr_rules() -> None:
    settings = OptimizerSettings(
        "adamw", backbone_lr_multiplier=0.1, lr_multipliers={"offsets": 0.5, "sampling_offsets": 0.1}
    )
    found = treatment(settings)
    assert found["backbone.0.weight"][0] == found["backbone.1.bias"][0] == 0.1
    assert found["branch.sampling_offsets.weight"][0] == 0.1, "the longest name wins"
    assert found["branch.cls.weight"][0] == 1


def test_every_parameter_once_and_frozen_ones_never() -> None:
    network = Network()
    network.backbone[0].weight.requires_grad_(False)
    groups = parameter_groups(network, OptimizerSettings(bias_lr_multiplier=2, norm_decay_multiplier=0))
    grouped = [id(p) for g in groups for p in g["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in network.parameters() if p.requires_grad}
    network.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        make_optimizer(network, OptimizerSettings(), torch.device("cpu"))


def test_a_name_that_fits_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no parameter's name contains 'reference'"):
        parameter_groups(Network(), OptimizerSettings(lr_multipliers={"reference": 0.1}))


def test_real_model_has_doubled_biases_only_outside_norms() -> None:
    network = create_model("fcos_r18_fpn", 3).network
    found = treatment(get_recipe("fcos_r50_fpn_1x").optimizer, network)
    norm_names = {f"{n}.bias" for n, m in network.named_modules() if isinstance(m, (nn.BatchNorm2d, nn.GroupNorm))}
    doubled = {name for name, (rate, _) in found.items() if rate == 2}
    assert doubled == {name for name, _ in network.named_parameters() if name.endswith(".bias")} - norm_names
    assert doubled and norm_names


def test_one_step_of_sgd_by_hand() -> None:
    network = Network()
    optimizer = make_optimizer(
        network, OptimizerSettings(lr=1, weight_decay=0.1, bias_lr_multiplier=2), torch.device("cpu")
    )
    set_rate(optimizer, 0.5)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, rate in (("branch.cls.weight", 0.5), ("branch.cls.bias", 1.0), ("norm.bias", 0.5)):
        expected = before[name] - rate * (1 + 0.1 * before[name])
        torch.testing.assert_close(dict(network.named_parameters())[name].detach(), expected)
