"""Backbones: timm's networks as feature extractors, with the freezing rules of published detectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from poise.nn.backbones.download import create_pretrained
from poise.nn.backbones.published_names import timm_names
from poise.nn.layers import DeformableConv
from poise.nn.no_random_values import NoRandomValues
from poise.plugins import load_plugins
from poise.storage import load_weights
from poise.suggestions import plural

TORCHVISION_WEIGHTS = {  # ImageNet weights that published detectors start from
    "resnet18": "resnet18.tv_in1k",
    "resnet34": "resnet34.tv_in1k",
    "resnet50": "resnet50.tv_in1k",
    "resnet101": "resnet101.tv_in1k",
    "resnext101_32x4d": "resnext101_32x4d.gluon_in1k",  # closest to open-mmlab's among timm's
    "resnext101_64x4d": "resnext101_64x4d.gluon_in1k",
}


BACKBONES: dict[str, Callable[[Sequence[int]], nn.Module]] = {}
"""Networks of plug-ins (``poise.register_backbone``); all other names are timm's."""


class Backbone(nn.Module):
    """Feature maps of a timm network, or of one that a plug-in registered.

    Args:
        name: a timm model name, for example ``resnet50``.
        stages: strides of the feature maps as powers of two: ``(3, 4, 5)`` are strides 8, 16 and 32.
        weights: ``None`` (random), ``"imagenet"`` (timm downloads them) or the path of a file of weights
            (safetensors, or a ``.pth`` that ``torch.load(weights_only=True)`` reads) with timm's names, torchvision's
            of MobileNetV2 or those of EfficientNet-Lite0's port.
        frozen_stages: k freezes the stem and the first k stages, batch norms included; 0 the stem; -1 nothing.
        norm_eval: keep the running statistics of batch norms fixed; their scale and shift are still trained.
        train_norm: train scales and shifts of batch norms.
        caffe: the stride of a stage is in its first 1x1 convolution (weights converted from Caffe).
        deformable_stages: stages, numbered like ``stages``, whose 3x3 convolutions are deformable.
        gated: weight deformable taps by a mask (DCNv2); otherwise only move them (DCNv1).

    With ``None``, ``frozen_stages`` and ``norm_eval`` are 1 and True, as published, if the backbone starts from
    weights, and -1 and False if it is initialized at random. A backbone whose stages are unknown (HRNet, plug-ins) is
    not frozen.
    """

    def __init__(
        self,
        name: str = "resnet50",
        stages: Sequence[int] = (3, 4, 5),
        weights: str | Path | None = None,
        frozen_stages: int | None = None,
        *,
        norm_eval: bool | None = None,
        train_norm: bool = True,
        caffe: bool = False,
        deformable_stages: Sequence[int] = (),
        gated: bool = True,
    ) -> None:
        super().__init__()
        pretrained = weights == "imagenet"
        if not timm.is_model(name.partition(".")[0]):
            load_plugins()
        self.plugged = name in BACKBONES
        self.body: Any = _plugged(name, stages, pretrained) if self.plugged else _features(name, stages, pretrained)
        channels = self.body.channels if self.plugged else self.body.feature_info.channels()
        self.channels: tuple[int, ...] = tuple(channels)
        self.strides: tuple[int, ...] = tuple(2**stage for stage in stages)
        self.default_options = (frozen_stages is None, norm_eval is None)
        self.frozen_stages = -1 if frozen_stages is None else frozen_stages
        self.norm_eval = bool(norm_eval)
        if caffe:
            _stride_in_first(self.body)
        if name.startswith("res2net"):
            _unpool_first_stage(self.body)
        if weights is not None and not pretrained:
            load_backbone_weights(self, Path(weights))
        self._make_deformable(deformable_stages, gated)
        if weights is not None:
            self.freeze_as_pretrained()
        for parameter in self._norm_parameters() if not train_norm else ():
            parameter.requires_grad_(False)
        self._freeze()

    def freeze_as_pretrained(self) -> None:
        """Apply the published ``frozen_stages`` and ``norm_eval`` where they are ``None``; called after loading
        weights."""
        default_frozen, default_norm = self.default_options
        if default_frozen:
            self.frozen_stages = 1 if self._knows_stages() else -1
        self.norm_eval = True if default_norm else self.norm_eval
        self._freeze()

    def resolved_options(self) -> dict[str, object]:
        """Return the values of options that were ``None``; saved together with the weights."""
        values = {"frozen_stages": self.frozen_stages, "norm_eval": self.norm_eval}
        return {option: values[option] for option, default in zip(values, self.default_options, strict=True) if default}

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Compute one map (B,C_l,H/s_l,W/s_l) of each stage, finest first, of pixels (B,3,H,W)."""
        return self.body(pixels)

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        if mode:
            self._set_frozen_eval()
        return self

    def _make_deformable(self, stages: Sequence[int], gated: bool) -> None:
        """Replace 3x3 convolutions by deformable ones that keep their weights."""
        info = [] if self.plugged else self.body.feature_info.info
        modules = {entry["reduction"]: entry["module"].replace(".", "_") for entry in info}
        for stage in stages:
            module = getattr(self.body, modules.get(2**stage, ""), None)
            if module is None or not make_deformable(module, gated):
                raise ValueError(
                    f"deformable_stages={tuple(stages)}: stage {stage} of this backbone has no 3x3 convolutions to "
                    "replace; ResNet, ResNeXt and Res2Net have them in stages 2 to 5"
                )

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        if self.plugged:
            raise ValueError(f"frozen_stages={self.frozen_stages}: the stages of this backbone are unknown; give -1")
        stages = self._stages()
        if self.frozen_stages > len(stages):
            raise ValueError(
                f"frozen_stages={self.frozen_stages}: the backbone has {plural(len(stages), 'stage')} (-1 freezes none)"
            )
        return modules_up_to(self.body, stages[max(self.frozen_stages, 1) - 1], included=self.frozen_stages > 0)

    def _knows_stages(self) -> bool:
        if self.plugged:
            return False
        try:
            return bool(modules_up_to(self.body, self._stages()[0], included=True))
        except ValueError:
            return False

    def _stages(self) -> list[str]:
        """Names of the modules that end the stages, from stride 4 on."""
        return [entry["module"] for entry in self.body.feature_info.info if entry["reduction"] >= 4]

    def _freeze(self) -> None:
        for module in self._frozen_modules():
            for parameter in module.parameters():
                parameter.requires_grad_(False)
        self._set_frozen_eval()

    def _set_frozen_eval(self) -> None:
        """Set frozen stages, and batch norms with fixed statistics, to evaluation mode."""
        for module in self._frozen_modules():
            module.eval()
        if self.norm_eval:
            for module in self.body.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def _norm_parameters(self) -> list[nn.Parameter]:
        norms = [module for module in self.body.modules() if isinstance(module, _BatchNorm)]
        return [parameter for norm in norms for parameter in norm.parameters()]


def _plugged(name: str, stages: Sequence[int], pretrained: bool) -> Any:
    """Return the network of a plug-in.

    Raises:
        ValueError: ImageNet weights, which only timm's networks have, or a network without ``channels``.
    """
    if pretrained:
        raise ValueError(f"backbone '{name}' has no ImageNet weights: give backbone_weights 'none' or a file")
    body = BACKBONES[name](tuple(stages))
    if len(getattr(body, "channels", ())) != len(stages):
        raise ValueError(
            f"backbone '{name}': its attribute channels must have {len(stages)} numbers, one of each stage"
        )
    return body


def _features(name: str, stages: Sequence[int], pretrained: bool) -> Any:
    """Return timm's network up to the last stage, with ImageNet weights if ``pretrained``.

    Raises:
        ValueError: timm does not know the network, it lacks a stage, or the weights cannot be fetched.
    """
    try:
        with torch.device("meta"), NoRandomValues():
            outline: Any = timm.create_model(name, features_only=True, pretrained=False)
    except RuntimeError as error:
        raise ValueError(f"backbone '{name}': {error} (timm.list_models() lists the networks)") from error
    reductions = outline.feature_info.reduction()
    if missing := [2**stage for stage in stages if 2**stage not in reductions]:
        raise ValueError(f"backbone '{name}' has no maps of stride {missing}; it has strides {reductions}")
    wanted = [reductions.index(2**stage) for stage in stages]
    if not pretrained:
        return timm.create_model(name, features_only=True, pretrained=False, out_indices=wanted)
    return create_pretrained(TORCHVISION_WEIGHTS.get(name, name), features_only=True, out_indices=wanted)


def _stride_in_first(body: nn.Module) -> None:
    """Move the stride of ResNet's bottlenecks from the 3x3 to the first 1x1 convolution."""
    for module in body.modules():
        first, second = getattr(module, "conv1", None), getattr(module, "conv2", None)
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d) and first.kernel_size == (1, 1):
            first.stride, second.stride = second.stride, first.stride


def _unpool_first_stage(body: nn.Module) -> None:
    """Remove the 3x3 average pooling of the last split in Res2Net's first stage, as published detectors do."""
    for module in body.modules():
        pool = getattr(module, "pool", None)
        if isinstance(pool, nn.AvgPool2d) and pool.stride in (1, (1, 1)):
            module.pool = nn.Identity()


def modules_up_to(body: nn.Module, last: str, *, included: bool) -> list[nn.Module]:
    """Return the modules of a network in their order up to the one named ``last``, which may lie inside another.

    Names are compared with dots as underscores, since timm flattens some networks (``stages.0`` to ``stages_0``).

    Raises:
        ValueError: the network has no such module.
    """
    wanted = last.replace(".", "_")
    found: list[nn.Module] = []

    def collect(parent: nn.Module, prefix: str) -> bool:
        for name, child in parent.named_children():
            path = prefix + name.replace(".", "_")
            if path == wanted:
                found.extend([child] if included else [])
                return True
            if wanted.startswith(path + "_"):
                return collect(child, path + "_")
            found.append(child)
        return False

    if not collect(body, ""):
        raise ValueError(f"frozen_stages: this backbone has no module '{last}', so that only -1 (nothing) is possible")
    return found


def make_deformable(stage: nn.Module, gated: bool = True) -> int:
    """Replace the 3x3 convolutions of a ResNet, ResNeXt or Res2Net stage by deformable ones; return their number."""
    replaced = 0
    for block in list(stage.modules()):
        conv = getattr(block, "conv2", None)
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
            block.conv2 = DeformableConv.of(conv, gated)
            replaced += 1
        convs = getattr(block, "convs", None)
        if isinstance(convs, nn.ModuleList):
            block.convs = nn.ModuleList([DeformableConv.of(c, gated) if isinstance(c, nn.Conv2d) else c for c in convs])
            replaced += len(convs)
    return replaced


def tensors_of(content: Mapping[str, object]) -> dict[str, Tensor]:
    """Return the tensors of a file of weights, also if nested under ``state_dict``."""
    inner = content.get("state_dict", content)
    return {key: value for key, value in inner.items() if isinstance(value, Tensor)} if isinstance(inner, dict) else {}


def load_backbone_weights(backbone: Any, path: Path) -> None:
    """Load a backbone from a file; classifier weights are ignored, everything else must fit.

    Raises:
        ValueError: the file does not hold this network's weights.
    """
    if not path.is_file():
        raise ValueError(f"backbone weights '{path}': no such file (give 'imagenet', a file, or nothing)")
    state = timm_names(tensors_of(load_weights(path)))
    known = backbone.body.state_dict()
    missing = [key for key in known if key not in state and not key.endswith("num_batches_tracked")]
    differing = [key for key in known if key in state and state[key].shape != known[key].shape]
    if missing or differing:
        example = (missing + differing)[0]
        raise ValueError(
            f"backbone weights '{path}' do not fit: {len(missing)} tensors missing, {len(differing)} of another shape, "
            f"first '{example}'; is it a file of the same network?"
        )
    backbone.body.load_state_dict({key: state[key] for key in known if key in state}, strict=False)
