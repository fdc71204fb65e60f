"""Parts that several papers' models share, in the settings of their published recipes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from poise.nn.backbones import Backbone
from poise.nn.fpn import FPN, StridedLevels

Weights = str | Path | None


def pyramid(backbone: Backbone, channels: int, from_input: bool, relu: bool) -> FPN:
    """P3 to P7 over the backbone's last three stages; see ``StridedLevels`` for where P6 and P7 come from."""
    source = backbone.channels[-1] if from_input else channels
    return FPN(backbone.channels, backbone.strides, channels, StridedLevels(source, channels, from_input, relu))


def check_choice(option: str, value: str, known: Iterable[str]) -> None:
    """Refuse a value that is not one of ``known``.

    Raises:
        ValueError: naming the option and what it can be.
    """
    if value not in known:
        raise ValueError(f"{option}='{value}': one of {', '.join(known)}")
