"""Translate names of backbone weights to timm's: torchvision's MobileNetV2 and EfficientNet-Lite0's port."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

MOBILENET_V2 = (1, 2, 3, 4, 3, 3, 1)  # blocks of each stage
EFFICIENTNET_LITE0 = (1, 2, 2, 3, 3, 4, 1)
TORCHVISION_FIRST = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}  # a block without expansion
TORCHVISION = {"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2", "2": "conv_pwl", "3": "bn3"}
LITE_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
LITE = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under timm's names; classifier layers are left out, other files are returned as they are."""
    if "features.0.0.weight" in state and "features.18.0.weight" in state:
        return _renamed(state, _torchvision_name)
    if "_conv_stem.weight" in state and "_blocks.15._project_conv.weight" in state:
        return _renamed(state, _lite_name)
    return dict(state)


def _renamed(state: Mapping[str, Tensor], name_of: Callable[[str, str], str]) -> dict[str, Tensor]:
    parts = {key: key.rpartition(".") for key in state}
    named = {key: name_of(module, tensor) for key, (module, _, tensor) in parts.items()}
    return {name: state[key] for key, name in named.items() if name}


def _torchvision_name(module: str, tensor: str) -> str:
    if module in ("features.0.0", "features.0.1"):
        return f"{'conv_stem' if module.endswith('.0') else 'bn1'}.{tensor}"
    found = re.fullmatch(r"features\.(\d+)\.conv\.([\d.]+)", module)
    if found is None:
        return ""
    block = int(found[1]) - 1
    layers = TORCHVISION if block else TORCHVISION_FIRST
    return f"{_block_name(block, MOBILENET_V2)}.{layers[found[2]]}.{tensor}"


def _lite_name(module: str, tensor: str) -> str:
    if module in ("_conv_stem", "_bn0"):
        return f"{'conv_stem' if module == '_conv_stem' else 'bn1'}.{tensor}"
    found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", module)
    if found is None:
        return ""
    block = int(found[1])
    layers = LITE if block else LITE_FIRST
    return f"{_block_name(block, EFFICIENTNET_LITE0)}.{layers[found[2]]}.{tensor}"


def _block_name(block: int, stages: Sequence[int]) -> str:
    """Return ``blocks.STAGE.NUMBER`` of block number ``block`` of the network."""
    for stage, count in enumerate(stages):
        if block < count:
            return f"blocks.{stage}.{block}"
        block -= count
    raise ValueError(f"a block beyond the {sum(stages)} of this network")
