"""The transformer of Deformable-DETR (Zhu et al. 2021) and of its descendants DINO and Co-DETR."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from poise.nn.kernels.deformable_sampling import sample_levels
from poise.nn.transformer.layers import MLP, FeedForward, PredictionHead, SelfAttention, refine_boxes
from poise.nn.transformer.queries import DecoderOutput, Queries
from poise.nn.transformer.recollection import State, attend_within_sets, collect, repeat_sets
from poise.nn.transformer.tokens import YXWH, Tokens, box_sine

Refinement = Literal["none", "once", "twice"]


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention (eq. 3): each query samples a few points of every level around its reference.

    Args:
        channels: C.
        heads: attention heads; divides C.
        levels: of the memory.
        points: sampled by each head on each level.
    """

    def __init__(self, channels: int, heads: int, levels: int, points: int = 4) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be divided among {heads} heads")
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.weights = nn.Linear(channels, heads * levels * points)
        self.values = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start each head in a direction of its own: point p lies p steps from the reference, on every level."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack((angle.cos(), angle.sin()), 1)
        direction = direction / direction.abs().amax(1, keepdim=True)
        offsets = direction[:, None, None] * torch.arange(1, self.points + 1)[:, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())
        for zero in (self.sampling_offsets.weight, self.weights.weight, self.weights.bias):
            nn.init.zeros_(zero)
        for layer in (self.values, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, query: Tensor, references: Tensor, memory: Tokens) -> Tensor:
        """Attend to the memory; returns (B,Q,C).

        Args:
            query: (B,Q,C) with positions added.
            references: (B,Q,2|4) normalized points or boxes.
        """
        value = self.values(memory.values).masked_fill(memory.padding_mask[..., None], 0.0)
        locations, weights = self.sampling_points(query, references, memory)
        sampled = sample_levels(value.unflatten(-1, (self.heads, -1)), memory.shapes, locations, weights)
        return self.output(sampled.to(query.dtype))

    def sampling_points(self, query: Tensor, references: Tensor, memory: Tokens) -> tuple[Tensor, Tensor]:
        """Return sampling locations (B,Q,H,L,P,2), normalized by each level's map, and their weights (B,Q,H,L,P).

        Offsets from a point are in cells of the level; offsets from a box in half its width and height over P.
        """
        form = (self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(query).float().unflatten(-1, (*form, 2))
        weights = self.weights(query).float().unflatten(-1, (self.heads, -1)).softmax(-1).unflatten(-1, form[1:])
        ratios = memory.valid_ratios.repeat(1, 1, references.shape[-1] // 2)
        on_levels = (references.float()[:, :, None] * ratios[:, None])[:, :, None, :, None]  # (B,Q,1,L,1,2|4)
        if references.shape[-1] == 2:
            sides = [side for height, width in memory.shapes for side in (width, height)]
            unit = torch.cat([offsets.new_full((1,), 1 / side) for side in sides]).view(-1, 1, 2)
        else:
            unit = on_levels[..., 2:] * (0.5 / self.points)
        return on_levels[..., :2] + offsets * unit, weights


class DeformableEncoderLayer(nn.Module):
    """Encoder layer: each token attends to points around itself on all levels."""

    def __init__(self, channels: int, heads: int, levels: int, points: int, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = DeformableAttention(channels, heads, levels, points)
        self.feed_forward = FeedForward(channels, hidden, dropout)
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(2)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tokens) -> Tensor:
        attended = self.attention(tokens.values + tokens.positions, tokens.centers, tokens)
        x = self.norms[0](tokens.values + self.dropout(attended))
        return self.norms[1](self.feed_forward(x))


class DeformableDecoderLayer(nn.Module):
    """Decoder layer: self-attention among queries, then deformable cross-attention around their references."""

    def __init__(self, channels: int, heads: int, levels: int, points: int, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = SelfAttention(channels, heads, dropout)
        self.cross_attention = DeformableAttention(channels, heads, levels, points)
        self.feed_forward = FeedForward(channels, hidden, dropout)
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(3)])
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        references: Tensor,
        memory: Tokens,
        attention_mask: Tensor | None,
        sets: int = 1,
    ) -> Tensor:
        if sets == 1:
            attended = self.self_attention(x, positions, attention_mask)
        else:
            attended = attend_within_sets(self.self_attention, x, positions, attention_mask, sets=sets)
        x = self.norms[0](attended)
        attended = self.cross_attention(x + positions, references, memory)
        x = self.norms[1](x + self.dropout(attended))
        return self.norms[2](self.feed_forward(x))


class BoxPosition(nn.Module):
    """Computes positions of queries from their reference boxes before every layer (DAB-DETR, DINO).

    Boxes are normalized by the memory's first level, padding included, as in the original.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.width = channels // 2
        self.project = MLP(2 * channels, channels, channels, 2)

    def forward(self, references: Tensor, memory: Tokens) -> Tensor:
        on_first = references * memory.valid_ratios[:, None, 0].repeat(1, 1, 2)
        return self.project(box_sine(on_first, self.width, YXWH))


class DeformableDecoder(nn.Module):
    """Decoder with a prediction after each layer.

    Args:
        layers: decoder layers.
        heads: prediction heads, one for each layer or a single one for all layers.
        refine: ``none``: references stay as they are; ``once``: the box of a layer is the reference of the next
            (iterative box refinement); ``twice``: in addition, gradients of the next layer's box reach this layer's box
            (look forward twice, DINO section 3.5).
        position: computes positions of queries; None: the queries bring their positions.
        norm: applied to the hidden states before the prediction heads; refinement of references reads them without it,
            as in DINO.
        eps: of the inverse sigmoid of references.
    """

    def __init__(
        self,
        layers: list[DeformableDecoderLayer],
        heads: list[PredictionHead],
        refine: Refinement = "once",
        *,
        position: BoxPosition | None = None,
        norm: nn.LayerNorm | None = None,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.layers, self.prediction_heads = nn.ModuleList(layers), nn.ModuleList(heads)
        self.refine, self.position, self.norm, self.eps = refine, position, norm, eps

    def forward(
        self,
        queries: Queries,
        memory: Tokens,
        attention_mask: Tensor | None = None,
        recollect: bool = False,
    ) -> DecoderOutput:
        """Return the output of all layers.

        Args:
            attention_mask: (Q,Q) or (B,Q,Q) bool, True where the row's query may not attend to the column's.
            recollect: return the output of all collected sets of queries, layer by layer, the ordinary one of each
                layer last (see ``recollection``).
        """
        x, references = queries.content, queries.references
        logits: list[Tensor] = []
        boxes: list[Tensor] = []
        start = references  # what box offsets are added to; under "twice" it carries the previous layer's gradient
        older: State = (x, references, start)
        for i, layer in enumerate(self.layers):
            sets = x.shape[1] // queries.content.shape[1]
            if self.position is not None:
                positions = self.position(references, memory)
            else:
                positions = queries.positions if sets == 1 else repeat_sets(queries.positions, sets)
            x = layer(x, positions, references, memory, attention_mask, sets)
            head: Any = self.prediction_heads[min(i, len(self.prediction_heads) - 1)]
            class_logits, offsets = head(x if self.norm is None else self.norm(x))
            logits += class_logits.chunk(sets, 1)
            refined = refine_boxes(start, offsets, self.eps)
            boxes += refined.chunk(sets, 1)
            if self.refine != "none":
                if self.norm is not None or self.refine == "twice":
                    offsets = offsets if self.norm is None else head.box_offsets(x)
                    refined = refine_boxes(references, offsets, self.eps)
                references = refined.detach()
                start = refined if self.refine == "twice" else references
            if recollect:
                newer = (x, references, start)
                (x, references, start), older = collect(older, newer), newer
        return DecoderOutput(torch.stack(logits), torch.stack(boxes))
