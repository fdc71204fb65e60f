"""Parts that several papers' models share, in the settings of their published recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from poise import losses
from poise.criteria.distribution import iou_label
from poise.criteria.protocol import hard_label
from poise.nn.backbones.eva import Eva, SimplePyramid
from poise.nn.backbones.shufflenet import ShuffleNetV2
from poise.nn.backbones.swin import Swin
from poise.nn.backbones.timm_features import Backbone
from poise.nn.necks.channel_mapper import ChannelMapper
from poise.nn.necks.fpn import FPN, StridedLevels

Weights = str | Path | None
ClassLossName = Literal["focal", "varifocal"]
QueryBackbone = Backbone | Swin | Eva | ShuffleNetV2

ClassSupervision = tuple[Callable[..., Tensor], Callable[..., Tensor | float]]

CLASS_LOSSES: dict[str, ClassSupervision] = {
    "focal": (losses.focal, hard_label),
    "varifocal": (losses.varifocal, iou_label),
}


def pyramid(backbone: Backbone, channels: int, from_input: bool, relu: bool, groups: int = 0) -> FPN:
    """P3 to P7 over the backbone's last three stages; see ``StridedLevels`` for where P6 and P7 come from."""
    source = backbone.channels[-1] if from_input else channels
    extra = StridedLevels(source, channels, from_input, relu, groups)
    return FPN(backbone.channels, backbone.strides, channels, extra, groups)


def query_backbone(
    name: str,
    stages: Sequence[int],
    weights: Weights,
    frozen_stages: int | None,
    norm_eval: bool | None,
    drop_path: float = 0.0,
    deterministic: bool = False,
    window: int = 24,
    recomputed: bool = False,
) -> QueryBackbone:
    """A backbone of the DETR family.

    A Swin transformer, EVA-02, ShuffleNetV2 (which trains whole), or any other of timm's, whose norms are not trained.
    """
    drop_path = 0.0 if deterministic else drop_path
    if name.startswith("eva02_"):
        if frozen_stages not in (None, -1):
            raise ValueError(f"frozen_stages={frozen_stages}: all of an EVA-02 is trained")
        return Eva(name, weights, window, drop_path, recomputed)
    if name.startswith("swin_"):
        frozen = -1 if frozen_stages is None else frozen_stages
        return Swin(name, stages, weights, frozen, drop_path)
    if name.startswith("shufflenetv2_"):
        if frozen_stages not in (None, -1) or tuple(stages) != ShuffleNetV2.stages:
            raise ValueError(f"backbone '{name}': all of it is trained, and it has stages {ShuffleNetV2.stages} only")
        return ShuffleNetV2(name.partition("_")[2], weights)
    return Backbone(name, stages, weights, frozen_stages, norm_eval, train_norm=False)


def query_neck(body: QueryBackbone, channels: int) -> ChannelMapper | SimplePyramid:
    """The maps that a transformer's encoder reads: the backbone's and one coarser, or a pyramid of a single map."""
    if isinstance(body, Eva):
        return SimplePyramid(body.channels[0], channels)
    return ChannelMapper(body.channels, body.strides, channels, extra=1)


def check_choice(option: str, value: str, known: Iterable[str]) -> None:
    """Refuse a value that is not one of ``known``.

    Raises:
        ValueError: naming the option and what it can be.
    """
    if value not in known:
        raise ValueError(f"{option}='{value}': one of {', '.join(known)}")


def class_supervision(name: ClassLossName, focal: Callable[..., Tensor] = losses.focal) -> ClassSupervision:
    """The elementwise loss of the classes, and what positives are taught: 1, or the IoU of their box (varifocal).

    ``focal`` is the model's own form of the focal loss.
    """
    check_choice("class_loss", name, CLASS_LOSSES)
    return (focal, hard_label) if name == "focal" else CLASS_LOSSES[name]
