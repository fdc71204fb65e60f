"""Parts that the models of several papers share, with the settings of their published recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import cast

from torch import Tensor

from poise import losses
from poise.criteria.distribution import iou_label
from poise.criteria.matched_labels import MatchedLabel, matched_iou, matched_iou_of_normalized_boxes
from poise.criteria.set_prediction import iou_of_normalized_boxes
from poise.losses import hard_label
from poise.models.groups import BackboneOptions
from poise.models.notation import parse_part
from poise.models.values import VALUES, build_part
from poise.nn.backbones.eva import Eva, SimplePyramid
from poise.nn.backbones.shufflenet import ShuffleNetV2
from poise.nn.backbones.swin import Swin
from poise.nn.backbones.timm_features import Backbone
from poise.nn.necks.feature_pyramids import FPN, StridedLevels
from poise.nn.transformer.tokens import ChannelMapper

QueryBackbone = Backbone | Swin | Eva | ShuffleNetV2

ClassSupervision = tuple[Callable[..., Tensor], Callable[..., Tensor | float]]

MATCHED_LABELS = ("matchability", "iou_aware", "position_supervised")
CLASS_LOSSES: dict[str, ClassSupervision] = {
    "focal": (losses.focal, hard_label),
    "quality_focal": (losses.quality_focal, iou_label),
    "varifocal": (losses.varifocal, iou_label),
}


def pyramid(backbone: Backbone, channels: int, from_input: bool, relu: bool, *, groups: int = 0) -> FPN:
    """Return a pyramid P3 to P7 on the last three stages of the backbone; arguments as of ``StridedLevels``."""
    source = backbone.channels[-1] if from_input else channels
    extra = StridedLevels(source, channels, from_input, relu, groups=groups)
    return FPN(backbone.channels, backbone.strides, channels, extra, groups=groups)


def timm_backbone(
    options: BackboneOptions,
    stages: Sequence[int] = (3, 4, 5),
    *,
    train_norm: bool = True,
    caffe: bool = False,
    deformable_stages: Sequence[int] = (),
    gated: bool = True,
) -> Backbone:
    """Return a backbone of timm or of a plug-in; arguments as of ``Backbone``, whose norms ``caffe`` freezes."""
    return Backbone(
        options.backbone,
        stages,
        options.backbone_weights,
        options.frozen_stages,
        norm_eval=options.norm_eval,
        train_norm=train_norm and not caffe,
        caffe=caffe,
        deformable_stages=deformable_stages,
        gated=gated,
    )


def query_backbone(
    options: BackboneOptions,
    stages: Sequence[int],
    *,
    drop_path: float = 0.0,
    window: int = 24,
    checkpointed: bool = False,
) -> QueryBackbone:
    """Return a backbone of the DETR family: Swin, EVA-02, ShuffleNetV2, or any other of timm with frozen norms.

    Args:
        options: the name is ``swin_...``, ``eva02_...``, ``shufflenetv2_...`` or another one of timm.
        stages: stages whose maps are returned.
        drop_path: probability of stochastic depth.
        window: side of EVA-02's attention windows, in patches.
        checkpointed: whether EVA-02 recomputes its activations in the backward pass.
    """
    name, weights, frozen_stages = options.backbone, options.backbone_weights, options.frozen_stages
    if name.startswith("eva02_"):
        if frozen_stages not in (None, -1):
            raise ValueError(
                f"frozen_stages={frozen_stages}: all stages of an EVA-02 are trained; leave the option out"
            )
        return Eva(name, weights, window, drop_path, checkpointed=checkpointed)
    if name.startswith("swin_"):
        frozen = -1 if frozen_stages is None else frozen_stages
        return Swin(name, stages, weights, frozen, drop_path=drop_path)
    if name.startswith("shufflenetv2_"):
        if frozen_stages not in (None, -1) or tuple(stages) != ShuffleNetV2.stages:
            raise ValueError(
                f"backbone '{name}': all stages are trained, and only stages {ShuffleNetV2.stages} are available"
            )
        return ShuffleNetV2(name.partition("_")[2], weights)
    return timm_backbone(options, stages, train_norm=False)


def query_neck(body: QueryBackbone, channels: int) -> ChannelMapper | SimplePyramid:
    """Return the neck of a query detector: the backbone's maps and one coarser, or for EVA-02 a simple pyramid."""
    if isinstance(body, Eva):
        return SimplePyramid(body.channels[0], channels)
    return ChannelMapper(body.channels, body.strides, channels, extra=1)


def check_choice(option: str, value: str, known: Iterable[str]) -> None:
    """Check that ``value`` is one of ``known``.

    Raises:
        ValueError: it is not; the message names the option and its values.
    """
    if value not in known:
        raise ValueError(f"{option}='{value}': one of {', '.join(known)}")


def refuse_without_effect(reason: str, **given: object) -> None:
    """Check that none of the options ``given`` has a value; all of them default to None.

    Raises:
        ValueError: one has a value; the message says that it has no effect, and ``reason``.
    """
    for option, value in given.items():
        if value is not None:
            raise ValueError(f"{option}={value!r} has no effect: {reason}; leave it out")


def class_supervision(text: str, focal: Callable[..., Tensor] = losses.focal) -> ClassSupervision:
    """Return the elementwise class loss and the class target of positives: 1 (focal), or a function of their IoU.

    Args:
        text: a name of ``CLASS_LOSSES``, or one of ``MATCHED_LABELS`` with or without options.
        focal: the focal loss with the constants of the model.
    """
    if (loss := matched_label(text, CLASS_LOSSES)) is not None:
        return loss, matched_iou
    return (focal, hard_label) if text == "focal" else CLASS_LOSSES[text]


def query_class_supervision(text: str) -> ClassSupervision:
    """Return ``class_supervision`` of a DETR, whose IoUs are those of normalized boxes."""
    loss, soft_label = class_supervision(text)
    if soft_label is hard_label:
        return loss, hard_label
    return loss, matched_iou_of_normalized_boxes if soft_label is matched_iou else iou_of_normalized_boxes


def matched_label(text: str, known: Iterable[str]) -> MatchedLabel | None:
    """Return the ``MatchedLabel`` of a text such as ``matchability(gamma=2)``; None for the name of another loss.

    Raises:
        ValueError: the text is neither one of ``known`` nor of ``MATCHED_LABELS``, or an option is wrong.
    """
    if text in known:
        return None
    part = parse_part(text)
    if part.name not in MATCHED_LABELS:
        raise ValueError(f"class_loss='{text}': one of {', '.join([*known, *MATCHED_LABELS])}")
    return cast(MatchedLabel, build_part(part, "class_loss", VALUES))
