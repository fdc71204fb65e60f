"""The optimizer and its parameter groups (spec of the published recipes: decay of norms and biases, rates by name)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from poise.engine.fsdp import is_sharded
from poise.recipes import OptimizerSettings

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.RMSNorm)


def parameter_groups(network: nn.Module, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Group the trainable parameters by learning rate multiplier and weight decay.

    A bias is a parameter named ``bias`` that is neither in a normalization layer nor in the offset convolution of a
    deformable one (``conv_offset``). The rate is multiplied by the bias multiplier and by the entry of
    ``lr_multipliers`` with the longest name that is part of the parameter's name, else by the backbone's multiplier.
    The decay is ``weight_decay`` times the norm or bias multiplier.

    Returns:
        dicts with ``params``, ``names``, ``lr_multiplier`` and ``weight_decay``, in the order of first occurrence.
    """
    in_norms = {id(p) for m in network.modules() if isinstance(m, NORMS) for p in m.parameters(recurse=False)}
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        rate, decay = _name_multiplier(name, settings), 1.0
        if id(parameter) in in_norms:
            decay = settings.norm_decay_multiplier
        elif name.rpartition(".")[2] == "bias" and "conv_offset" not in name:
            rate *= settings.bias_lr_multiplier
            decay = settings.bias_decay_multiplier
        empty = {
            "params": [],
            "names": [],
            "lr_multiplier": rate,
            "weight_decay": decay * settings.weight_decay,
        }
        group = groups.setdefault((rate, decay), empty)
        group["params"].append(parameter)
        group["names"].append(name)
    _refuse_unused(network, settings)
    return list(groups.values())


def make_optimizer(network: nn.Module, settings: OptimizerSettings, device: torch.device) -> torch.optim.Optimizer:
    """Make SGD or AdamW over :func:`parameter_groups`, fused on CPUs and GPUs.

    A fused optimizer reads and writes each parameter once a step, and on a GPU skips a step without synchronization.

    Raises:
        ValueError: nothing is trainable, or ``lr_multipliers`` names a part that no parameter has.
    """
    groups = parameter_groups(network, settings)
    if not groups:
        raise ValueError("every parameter of the model is frozen: there is nothing to train. Lower frozen_stages")
    # fused kernels do not mix DTensors and tensors
    fused = True if device.type in ("cpu", "cuda") and not is_sharded(network) else None
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, settings.lr, settings.betas, fused=fused)
    return torch.optim.SGD(groups, settings.lr, settings.momentum, nesterov=settings.nesterov, fused=fused)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group to ``rate`` times its multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_multiplier"]


def _name_multiplier(name: str, settings: OptimizerSettings) -> float:
    fitting = [part for part in settings.lr_multipliers if part in name]
    if fitting:
        return settings.lr_multipliers[max(fitting, key=len)]
    return settings.backbone_lr_multiplier if name.startswith("backbone.") else 1.0


def _refuse_unused(network: nn.Module, settings: OptimizerSettings) -> None:
    names = [name for name, _ in network.named_parameters()]
    for part in settings.lr_multipliers:
        if not any(part in name for name in names):
            raise ValueError(f"optimizer.lr_multipliers: no parameter's name contains '{part}'; one is '{names[-1]}'")
