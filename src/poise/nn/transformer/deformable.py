"""The encoder and decoder of Deformable-DETR (Zhu et al. 2021) and its descendants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from poise.nn.transformer.deformable_attention import DeformableAttention
from poise.nn.transformer.layers import MLP, FeedForward, SelfAttention
from poise.nn.transformer.positions import YXWH, box_sine
from poise.nn.transformer.queries import DecoderOutput, Output, Queries, moved
from poise.nn.transformer.tokens import Tokens

Refinement = Literal["none", "once", "twice"]


class DeformableEncoderLayer(nn.Module):
    """Each token looks around itself on all levels."""

    def __init__(self, channels: int, heads: int, levels: int, points: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = DeformableAttention(channels, heads, levels, points)
        self.feed_forward = FeedForward(channels, hidden, dropout)
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(2)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tokens) -> Tensor:
        found = self.attention(tokens.values + tokens.positions, tokens.centers(), tokens)
        x = self.norms[0](tokens.values + self.dropout(found))
        return self.norms[1](self.feed_forward(x))


class DeformableDecoderLayer(nn.Module):
    """Queries look at one another, then around their references in the memory."""

    def __init__(self, channels: int, heads: int, levels: int, points: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = SelfAttention(channels, heads, dropout)
        self.cross_attention = DeformableAttention(channels, heads, levels, points)
        self.feed_forward = FeedForward(channels, hidden, dropout)
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(3)])
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, positions: Tensor, references: Tensor, memory: Tokens, blocked: Tensor | None
    ) -> Tensor:
        x = self.norms[0](self.self_attention(x, positions, blocked))
        found = self.cross_attention(x + positions, references, memory)
        x = self.norms[1](x + self.dropout(found))
        return self.norms[2](self.feed_forward(x))


class BoxPosition(nn.Module):
    """Positions of queries from their references, layer after layer (DAB-DETR, DINO).

    References are measured on the memory's first level, padding included, as in the original.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.width = channels // 2
        self.project = MLP(2 * channels, channels, channels, 2)

    def forward(self, references: Tensor, memory: Tokens) -> Tensor:
        return self.project(box_sine(memory.on_levels(references)[:, :, 0], self.width, YXWH))


class DeformableDecoder(nn.Module):
    """Layers that answer one after another.

    Args:
        outputs: one for all layers, or one each.
        refine: ``none``: references stay; ``once``: each layer's box is the next one's reference (iterative box
            refinement); ``twice``: and the next layer's box is also a correction of this one's (look forward twice).
        position: makes positions where the queries bring none.
        norm: of what outputs read; refinement in between reads it unnormalized, as in DINO.
        eps: where references near 0 and 1 are cut when they are refined.
    """

    def __init__(
        self,
        layers: list[DeformableDecoderLayer],
        outputs: list[Output],
        refine: Refinement = "once",
        position: BoxPosition | None = None,
        norm: nn.LayerNorm | None = None,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.layers, self.outputs = nn.ModuleList(layers), nn.ModuleList(outputs)
        self.refine, self.position, self.norm, self.eps = refine, position, norm, eps

    def forward(self, queries: Queries, memory: Tokens, blocked: Tensor | None = None) -> DecoderOutput:
        """DecoderOutput of all layers; ``blocked`` (Q,Q) is true where the row's query must not see the column's."""
        answers = list(self.layer_by_layer(queries, memory, blocked))
        logits, boxes = zip(*answers, strict=True)
        return DecoderOutput(torch.stack(logits), torch.stack(boxes))

    def layer_by_layer(
        self, queries: Queries, memory: Tokens, blocked: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits (B,Q,C) and boxes (B,Q,4) of each layer."""
        x, references = queries.content, queries.references
        start = references  # what the layer's box is measured from; may carry the previous layer's gradient
        for i, layer in enumerate(self.layers):
            positions = queries.positions
            if self.position is not None:
                positions = self.position(references, memory)
            x = layer(x, positions, references, memory, blocked)
            output: Any = self.outputs[min(i, len(self.outputs) - 1)]
            answer = x if self.norm is None else self.norm(x)
            change = output.change(answer)
            yield output.logits(answer), moved(start, change, self.eps)
            if self.refine != "none":
                refined = moved(references, change if self.norm is None else output.change(x), self.eps)
                references = refined.detach()
                start = refined if self.refine == "twice" else references
