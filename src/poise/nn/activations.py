"""Leaky ReLU in networks that were built with ReLU."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)

SLOPE = 0.1  # of NanoDet's leaky ReLU


def leaky() -> nn.LeakyReLU:
    return nn.LeakyReLU(SLOPE, inplace=True)


def with_leaky_activations(network: Module) -> Module:
    """Replace every ReLU of the network by a leaky ReLU, in place; return the network."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, leaky())
    return network
