"""Balanced feature pyramid (BFP) of Libra R-CNN (Pang et al. 2019, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


class NonLocal(nn.Module):
    """Embedded-Gaussian non-local block (Wang et al. 2018): each position adds a weighted mean over all positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.value, self.output = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, level: Tensor) -> Tensor:
        query, key, value = (
            part(level).flatten(2).transpose(1, 2)[:, None] for part in (self.query, self.key, self.value)
        )
        mean = functional.scaled_dot_product_attention(query, key, value, scale=1.0)  # not divided by sqrt(channels)
        return level + self.output(mean[:, 0].transpose(1, 2).reshape(level.shape))


class Convolved(nn.Sequential):
    """A 3x3 convolution and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.add_module("conv", nn.Conv2d(channels, channels, 3, 1, 1))
        self.add_module("act", nn.ReLU())


REFINEMENTS: dict[str, type[nn.Module] | None] = {"none": None, "conv": Convolved, "non_local": NonLocal}


class BalancedPyramid(nn.Module):
    """Resizes all levels to one size, averages them (eq. 4), refines the mean and adds it to every level.

    Maps (B,C,H_l,W_l) may come from any pyramid, finest first; sizes need not be exact halves. As in the published code
    all convolutions are initialized by Xavier's distribution, so that the non-local block does not start as the
    identity.

    Args:
        channels: C.
        level: whose size the resized maps have (published models: the level of stride 16).
        refine: ``"none"``, ``"conv"`` or ``"non_local"``.
    """

    def __init__(self, channels: int, level: int = 2, refine: str = "non_local") -> None:
        super().__init__()
        if refine not in REFINEMENTS:
            raise ValueError(f"refine='{refine}': one of {', '.join(REFINEMENTS)}")
        self.level = level
        build = REFINEMENTS[refine]
        self.refine = nn.Identity() if build is None else build(channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        if not 0 <= self.level < len(maps):
            raise ValueError(f"BalancedPyramid gathers at level {self.level}, there are {len(maps)}")
        size = maps[self.level].shape[-2:]
        gathered = [_resize(level, size, shrink=i < self.level) for i, level in enumerate(maps)]
        balanced = self.refine(sum(gathered[1:], gathered[0]) / len(gathered))
        return [level + _resize(balanced, level.shape[-2:], shrink=i >= self.level) for i, level in enumerate(maps)]


def balanced_pyramid(channels: int, strides: Sequence[int], level: int | None, refine: str) -> BalancedPyramid:
    """Return a balanced feature pyramid for maps of ``strides``; ``level`` None: that of stride 16, or the second.

    Raises:
        ValueError: the pyramid does not have the level, or the refinement is unknown.
    """
    if level is None:
        level = strides.index(16) if 16 in strides else min(1, len(strides) - 1)
    if not 0 <= level < len(strides):
        raise ValueError(f"refine_level={level}: the pyramid has levels 0 to {len(strides) - 1}, of strides {strides}")
    return BalancedPyramid(channels, level, refine)


def _resize(level: Tensor, size: tuple[int, ...], shrink: bool) -> Tensor:
    """Resize a map: adaptive max pooling to a smaller size, nearest-neighbor interpolation to a larger one."""
    if level.shape[-2:] == size:
        return level
    return functional.adaptive_max_pool2d(level, size) if shrink else functional.interpolate(level, size=size)
