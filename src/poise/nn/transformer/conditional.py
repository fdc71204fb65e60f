"""Conditional cross-attention (Meng et al. 2021): what to look for and where to look, compared apart.

Content and position of queries and keys are projected each on their own. In cross-attention they are not added but
laid side by side, so that a head finds a box's edge by its place alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from poise.nn.transformer.layers import MLP, EncoderLayer, FeedForward
from poise.nn.transformer.positions import YXWH, box_sine
from poise.nn.transformer.queries import DecoderOutput, Output, Queries, moved
from poise.nn.transformer.tokens import Tokens

SMALLEST = 1e-5  # share of the image: anchors' sides divide by no less


class ConditionalSelfAttention(nn.Module):
    """Attention among queries, added to them."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query_content, self.query_position = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.key_content, self.key_position = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.value, self.output = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, blocked: Tensor | None = None) -> Tensor:
        query = self.query_content(x) + self.query_position(positions)
        key = self.key_content(x) + self.key_position(positions)
        found = attend(query, key, self.value(x), self.heads, _seen(blocked), self.dropout if self.training else 0.0)
        return x + self.drop(self.output(found))


class ConditionalCrossAttention(nn.Module):
    """Attention of queries to the memory, added to the queries.

    Args:
        first: of the decoder's first layer, where the query's own position is added to its content.
    """

    def __init__(self, channels: int, heads: int, dropout: float, first: bool) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query_content, self.query_sine = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.query_position = nn.Linear(channels, channels) if first else None
        self.key_content, self.key_position = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.value, self.output = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, sines: Tensor, memory: Tokens) -> Tensor:
        """``sines`` (B,Q,C) say where to look, in the encoding of the memory's own positions."""
        query, key = self._compared(x, positions, sines, memory)
        dropout = self.dropout if self.training else 0.0
        found = attend(query, key, self.value(memory.values), self.heads, _inside(memory), dropout)
        return x + self.drop(self.output(found))

    def look(self, x: Tensor, positions: Tensor, sines: Tensor, memory: Tokens) -> Tensor:
        """How each head weighs each token, (B,H,Q,N), without dropout."""
        query, key = self._compared(x, positions, sines, memory)
        q, k = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2).float() for t in (query, key))
        alike = (q @ k.transpose(2, 3)) / math.sqrt(q.shape[-1])
        return alike.masked_fill(~_inside(memory), -torch.inf).softmax(-1)

    def _compared(self, x: Tensor, positions: Tensor, sines: Tensor, memory: Tokens) -> tuple[Tensor, Tensor]:
        """Queries (B,Q,2C) and keys (B,N,2C): of each head its content with its place behind it."""
        query, key = self.query_content(x), self.key_content(memory.values)
        place = self.key_position(memory.positions)
        if self.query_position is not None:
            query, key = query + self.query_position(positions), key + place
        return _beside(query, self.query_sine(sines), self.heads), _beside(key, place, self.heads)


class ConditionalDecoderLayer(nn.Module):
    """Queries look at one another, then where their sines point."""

    def __init__(
        self,
        channels: int,
        heads: int,
        hidden: int,
        dropout: float,
        first: bool,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.self_attention = ConditionalSelfAttention(channels, heads, dropout)
        self.cross_attention = ConditionalCrossAttention(channels, heads, dropout, first)
        self.feed_forward = FeedForward(channels, hidden, dropout, activation)
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(3)])

    def forward(
        self, x: Tensor, positions: Tensor, sines: Tensor, memory: Tokens, blocked: Tensor | None = None
    ) -> Tensor:
        x = self.norms[0](self.self_attention(x, positions, blocked))
        x = self.norms[1](self.cross_attention(x, positions, sines, memory))
        return self.norms[2](self.feed_forward(x))


class ConditionalDecoder(nn.Module):
    """Conditional-DETR's: the reference point stays, its sine is scaled by what the query has learned so far."""

    def __init__(self, layers: list[ConditionalDecoderLayer], output: Output, channels: int) -> None:
        super().__init__()
        self.layers, self.output, self.norm = nn.ModuleList(layers), output, nn.LayerNorm(channels)
        self.scale = MLP(channels, channels, channels, 2)
        self.width = channels // 2

    def forward(self, queries: Queries, memory: Tokens, blocked: Tensor | None = None) -> DecoderOutput:
        """DecoderOutput of all layers; ``blocked`` (Q,Q) is true where the row's query must not see the column's."""
        sines = box_sine(queries.references[..., :2], self.width, YXWH)
        x, answers = queries.content, []
        for i, layer in enumerate(self.layers):
            x = layer(x, queries.positions, sines if i == 0 else sines * self.scale(x), memory, blocked)
            answers.append(self.norm(x))
        answer = torch.stack(answers)
        boxes = moved(queries.references, self.output.change(answer), 1e-5)
        return DecoderOutput(self.output.logits(answer), boxes)


class AnchorDecoder(nn.Module):
    """DAB-DETR's (Liu et al. 2022): references are boxes, refined layer by layer, whose size widens the look.

    Args:
        eps: where a reference near 0 and 1 is cut when a box is measured from it; refinement itself cuts at 1e-5.
    """

    def __init__(self, layers: list[ConditionalDecoderLayer], output: Output, channels: int, eps: float = 1e-3) -> None:
        super().__init__()
        self.layers, self.output, self.norm = nn.ModuleList(layers), output, nn.LayerNorm(channels)
        self.scale = MLP(channels, channels, channels, 2)
        self.size = MLP(channels, channels, 2, 2)
        self.position = MLP(2 * channels, channels, channels, 2)
        self.channels, self.eps = channels, eps

    def forward(self, queries: Queries, memory: Tokens, blocked: Tensor | None = None) -> DecoderOutput:
        """DecoderOutput of all layers; ``blocked`` (Q,Q) is true where the row's query must not see the column's."""
        logits, boxes = zip(*self.layer_by_layer(queries, memory, blocked), strict=True)
        return DecoderOutput(torch.stack(logits), torch.stack(boxes))

    def layer_by_layer(
        self, queries: Queries, memory: Tokens, blocked: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits (B,Q,C) and boxes (B,Q,4) of each layer; each box also corrects the one before."""
        x, references = queries.content, queries.references
        start = references
        for i, layer in enumerate(self.layers):
            encoded = box_sine(references, self.channels // 2, YXWH)
            sines = encoded[..., : self.channels] * (1 if i == 0 else self.scale(x))
            x = layer(x, self.position(encoded), self._widened(sines, x, references), memory, blocked)
            answer = self.norm(x)
            yield self.output.logits(answer), moved(start, self.output.change(answer), self.eps)
            start = moved(references, self.output.change(x), 1e-5)
            references = start.detach()

    def _widened(self, sines: Tensor, x: Tensor, references: Tensor) -> Tensor:
        """Sines (y half, x half) weighed by how high and wide the query expects its object against its anchor."""
        ratio = self.size(x).float().sigmoid() / references[..., 2:].clamp(min=SMALLEST)
        y, x_half = sines.chunk(2, -1)
        return torch.cat((y * ratio[..., 1:], x_half * ratio[..., :1]), -1)


class ScaledEncoder(nn.Module):
    """DAB-DETR's encoder: every layer scales the positions by what its tokens hold."""

    def __init__(self, layers: list[EncoderLayer], channels: int) -> None:
        super().__init__()
        self.layers, self.scale = nn.ModuleList(layers), MLP(channels, channels, channels, 2)

    def forward(self, tokens: Tokens) -> Tokens:
        for layer in self.layers:
            tokens = tokens.with_values(layer(tokens.at(tokens.positions * self.scale(tokens.values))))
        return tokens


class PointQueries(nn.Module):
    """Learned positions, a reference point from each, and nothing as content (Conditional-DETR)."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.embedding, self.point = nn.Embedding(count, channels), MLP(channels, channels, 2, 2)

    def forward(self, tokens: Tokens) -> Queries:
        positions = self.embedding.weight.expand(len(tokens.values), -1, -1)
        return Queries(torch.zeros_like(positions), self.point(positions).float().sigmoid(), positions)


class AnchorQueries(nn.Module):
    """Learned boxes, and nothing as content (DAB-DETR)."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.channels, self.anchors = channels, nn.Embedding(count, 4)

    def forward(self, tokens: Tokens) -> Queries:
        boxes = self.anchors.weight.float().sigmoid().expand(len(tokens.values), -1, -1)
        return Queries(boxes.new_zeros(*boxes.shape[:2], self.channels), boxes)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, seen: Tensor | None, dropout: float) -> Tensor:
    """Softmax attention of (B,Q,·) queries over (B,N,·) keys with (B,N,C) values, ``heads`` heads side by side."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (query, key, value))
    return scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout).transpose(1, 2).flatten(2)


def _beside(a: Tensor, b: Tensor, heads: int) -> Tensor:
    """Each head's part of ``a`` with its part of ``b`` behind it."""
    return torch.cat((a.unflatten(-1, (heads, -1)), b.unflatten(-1, (heads, -1))), -1).flatten(-2)


def _inside(memory: Tokens) -> Tensor:
    return ~memory.padding[:, None, None]


def _seen(blocked: Tensor | None) -> Tensor | None:
    if blocked is None:
        return None
    return ~blocked if blocked.ndim == 2 else ~blocked[:, None]
