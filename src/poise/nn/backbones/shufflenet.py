"""ShuffleNetV2 (Ma et al. 2018) as a backbone: torchvision's network with leaky ReLU and without its classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision import models

from poise.nn.activations import with_leaky_activations
from poise.nn.backbones.download import cannot_fetch
from poise.nn.backbones.timm_features import tensors_of
from poise.storage import load_weights

WIDTHS = {
    "0.5x": (models.shufflenet_v2_x0_5, models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1),
    "1.0x": (models.shufflenet_v2_x1_0, models.ShuffleNet_V2_X1_0_Weights.IMAGENET1K_V1),
    "1.5x": (models.shufflenet_v2_x1_5, models.ShuffleNet_V2_X1_5_Weights.IMAGENET1K_V1),
    "2.0x": (models.shufflenet_v2_x2_0, models.ShuffleNet_V2_X2_0_Weights.IMAGENET1K_V1),
}


class ShuffleNetV2(nn.Module):
    """Feature maps of strides 8, 16 and 32; all layers are trained, batch norms included.

    Args:
        width: ``"0.5x"``, ``"1.0x"``, ``"1.5x"`` or ``"2.0x"``.
        weights: ``None`` (random), ``"imagenet"`` (torchvision downloads them; they were trained with ReLU) or a file
            of weights with torchvision's names.
    """

    stages = (3, 4, 5)
    strides = (8, 16, 32)

    def __init__(self, width: str = "1.0x", weights: str | Path | None = None) -> None:
        super().__init__()
        if width not in WIDTHS:
            raise ValueError(f"ShuffleNetV2 has no width '{width}', only {', '.join(WIDTHS)}")
        build, published = WIDTHS[width]
        network = with_leaky_activations(build(weights=None))
        self.conv1, self.maxpool = network.conv1, network.maxpool
        self.stage2, self.stage3, self.stage4 = network.stage2, network.stage3, network.stage4
        self.channels: tuple[int, ...] = tuple(
            stage[-1].branch2[-2].num_features * 2 for stage in (self.stage2, self.stage3, self.stage4)
        )
        self._initialize()
        if weights is not None:
            state = _download(published) if weights == "imagenet" else _read(Path(weights))
            self._load(state, str(weights))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Compute one map (B,C_l,H/s_l,W/s_l) of each stage, finest first, of pixels (B,3,H,W)."""
        fine = self.stage2(self.maxpool(self.conv1(pixels)))
        middle = self.stage3(fine)
        return [fine, middle, self.stage4(middle)]

    def freeze_as_pretrained(self) -> None:
        """Freeze nothing: the published recipe trains all layers."""

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=1.0 / module.weight.shape[1])
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.bias, 0.0001)

    def _load(self, state: dict[str, Tensor], source: str) -> None:
        own = self.state_dict()
        wrong = [key for key, value in own.items() if key not in state or state[key].shape != value.shape]
        if wrong:
            raise ValueError(
                f"backbone weights '{source}' do not fit: {len(wrong)} of {len(own)} tensors missing or of another "
                f"shape, first '{wrong[0]}'; is it a file of the same width of torchvision's ShuffleNetV2?"
            )
        self.load_state_dict({key: state[key] for key in own})


def _download(published: Any) -> dict[str, Tensor]:
    """Download torchvision's ImageNet weights, or raise ``ValueError`` with the cure."""
    try:
        state: dict[str, Tensor] = published.get_state_dict(progress=True)
    except OSError as error:
        raise ValueError(
            cannot_fetch("ShuffleNetV2", published.url, getattr(error, "reason", None) or error)
        ) from error
    return state


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"backbone weights '{path}': no such file (give 'imagenet', a file, or nothing)")
    return tensors_of(load_weights(path))
