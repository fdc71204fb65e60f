"""Multi-scale deformable attention (Zhu et al. 2021, eq. 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from poise.nn.kernels.deformable_sampling import on_device, sample_levels
from poise.nn.transformer.tokens import Tokens


class DeformableAttention(nn.Module):
    """Every query looks at a few points of every level around its reference, and weighs what it finds there.

    Args:
        levels: of the memory.
        points: that each head looks at on each level.
    """

    def __init__(self, channels: int, heads: int, levels: int, points: int = 4) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be parted among {heads} heads")
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.weights = nn.Linear(channels, heads * levels * points)
        self.values = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Each head starts by looking its own way, each point a step further, on all levels alike."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        way = torch.stack((angle.cos(), angle.sin()), 1)
        way = way / way.abs().amax(1, keepdim=True)
        step = torch.arange(1, self.points + 1)
        start = way[:, None, None] * step[:, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(start.expand(-1, self.levels, -1, -1).flatten())
        for zero in (self.sampling_offsets.weight, self.weights.weight, self.weights.bias):
            nn.init.zeros_(zero)
        for layer in (self.values, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, query: Tensor, references: Tensor, memory: Tokens) -> Tensor:
        """(B,Q,C) queries that know their position and (B,Q,2|4) references in shares of the image to (B,Q,C).

        Around a point offsets are in cells of the level; around a box in half its width and height over the points.
        """
        value = self.values(memory.values).masked_fill(memory.padding[..., None], 0.0)
        locations, weights = self.look(query, references, memory)
        found = sample_levels(value.unflatten(-1, (self.heads, -1)), memory.shapes, locations, weights)
        return self.output(found.to(query.dtype))

    def look(self, query: Tensor, references: Tensor, memory: Tokens) -> tuple[Tensor, Tensor]:
        """Where each head looks, (B,Q,H,L,P,2) in shares of each level's map, and how it weighs that, (B,Q,H,L,P)."""
        form = (self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(query).float().unflatten(-1, (*form, 2))
        weights = self.weights(query).float().unflatten(-1, (self.heads, -1)).softmax(-1).unflatten(-1, form[1:])
        place = memory.on_levels(references.float())[:, :, None, :, None]  # (B,Q,1,L,1,2|4)
        if place.shape[-1] == 2:
            cells = [1 / side for height, width in memory.shapes for side in (width, height)]
            reach = on_device(cells, torch.float32, query.device).view(-1, 1, 2)
        else:
            reach = place[..., 2:] * (0.5 / self.points)
        return place[..., :2] + offsets * reach, weights
