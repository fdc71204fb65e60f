"""The transformers of Conditional-DETR (Meng et al. 2021) and DAB-DETR (Liu et al. 2022).

Conditional attention projects content and position of queries and keys separately. In cross-attention the two are
concatenated instead of added, so that each head can locate an edge of the box by position alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from poise.nn.transformer.layers import MLP, EncoderLayer, FeedForward, PredictionHead, attend_within_sets, refine_boxes
from poise.nn.transformer.queries import DecoderOutput, Queries
from poise.nn.transformer.recollection import State, collect, repeat_sets
from poise.nn.transformer.tokens import YXWH, Tokens, box_sine

MIN_SIDE = 1e-5  # normalized; sides of anchors are divided by at least this


class ConditionalSelfAttention(nn.Module):
    """Self-attention among queries with a residual connection."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query_content, self.query_position = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.key_content, self.key_position = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.value, self.output = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Attend among x (B,Q,C); ``attention_mask`` as in ``ConditionalDecoder``."""
        query = self.query_content(x) + self.query_position(positions)
        key = self.key_content(x) + self.key_position(positions)
        allowed = None if attention_mask is None else ~attention_mask
        allowed = allowed[:, None] if allowed is not None and allowed.ndim == 3 else allowed
        dropout = self.dropout if self.training else 0.0
        attended = attend(query, key, self.value(x), heads=self.heads, allowed=allowed, dropout=dropout)
        return x + self.drop(self.output(attended))


class ConditionalCrossAttention(nn.Module):
    """Cross-attention of queries to the memory with a residual connection.

    Args:
        first: whether this is the decoder's first layer, where positions of queries and keys are also added to their
            content.
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
        """Attend from x (B,Q,C) to the memory; ``sines`` (B,Q,C) encode the references as the memory's positions
        are."""
        query, key = self._queries_and_keys(x, positions, sines, memory)
        allowed = ~memory.padding_mask[:, None, None]
        dropout = self.dropout if self.training else 0.0
        attended = attend(query, key, self.value(memory.values), heads=self.heads, allowed=allowed, dropout=dropout)
        return x + self.drop(self.output(attended))

    def attention_weights(self, x: Tensor, positions: Tensor, sines: Tensor, memory: Tokens) -> Tensor:
        """Return the weight of each token for each head and query, (B,H,Q,N), without dropout."""
        query, key = self._queries_and_keys(x, positions, sines, memory)
        q, k = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2).float() for t in (query, key))
        similarity = (q @ k.transpose(2, 3)) / math.sqrt(q.shape[-1])
        return similarity.masked_fill(memory.padding_mask[:, None, None], -torch.inf).softmax(-1)

    def _queries_and_keys(self, x: Tensor, positions: Tensor, sines: Tensor, memory: Tokens) -> tuple[Tensor, Tensor]:
        """Return queries (B,Q,2C) and keys (B,N,2C); each head holds its content followed by its position."""
        query, key = self.query_content(x), self.key_content(memory.values)
        key_position = self.key_position(memory.positions)
        if self.query_position is not None:
            query, key = query + self.query_position(positions), key + key_position
        pairs = ((query, self.query_sine(sines)), (key, key_position))
        by_head = [[t.unflatten(-1, (self.heads, -1)) for t in pair] for pair in pairs]
        query, key = (torch.cat(pair, -1).flatten(-2) for pair in by_head)
        return query, key


class ConditionalDecoderLayer(nn.Module):
    """Decoder layer: self-attention, conditional cross-attention, feed-forward network."""

    def __init__(
        self,
        channels: int,
        heads: int,
        hidden: int,
        *,
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
        self,
        x: Tensor,
        positions: Tensor,
        sines: Tensor,
        memory: Tokens,
        attention_mask: Tensor | None = None,
        sets: int = 1,
    ) -> Tensor:
        attended = attend_within_sets(self.self_attention, x, positions, attention_mask, sets=sets)
        x = self.norms[0](attended)
        x = self.norms[1](self.cross_attention(x, positions, sines, memory))
        return self.norms[2](self.feed_forward(x))


class ConditionalDecoder(nn.Module):
    """Decoder of Conditional-DETR: reference points stay fixed; their encodings are scaled by the hidden states."""

    def __init__(self, layers: list[ConditionalDecoderLayer], head: PredictionHead, channels: int) -> None:
        super().__init__()
        self.layers, self.prediction_head, self.norm = nn.ModuleList(layers), head, nn.LayerNorm(channels)
        self.scale = MLP(channels, channels, channels, 2)
        self.width = channels // 2

    def forward(
        self, queries: Queries, memory: Tokens, attention_mask: Tensor | None = None, recollect: bool = False
    ) -> DecoderOutput:
        """Return the output of all layers.

        Args:
            attention_mask: (Q,Q) or (B,Q,Q) bool, True where the row's query may not attend to the column's.
            recollect: as in ``DeformableDecoder``.
        """
        sines = box_sine(queries.references[..., :2], self.width, YXWH)
        x, hidden = queries.content, []
        older: State = (x,)
        for i, layer in enumerate(self.layers):
            sets = x.shape[1] // queries.content.shape[1]
            positions, encoded = (repeat_sets(t, sets) for t in (queries.positions, sines))
            x = layer(x, positions, encoded if i == 0 else encoded * self.scale(x), memory, attention_mask, sets)
            hidden += self.norm(x).chunk(sets, 1)
            if recollect:
                newer = (x,)
                (x,), older = collect(older, newer), newer
        logits, offsets = self.prediction_head(torch.stack(hidden))
        return DecoderOutput(logits, refine_boxes(queries.references, offsets, 1e-5))


class AnchorDecoder(nn.Module):
    """Decoder of DAB-DETR: references are anchor boxes, refined by each layer, whose size modulates cross-attention.

    Args:
        eps: of the inverse sigmoid of references where a layer's box is predicted; refinement itself uses 1e-5.
    """

    def __init__(
        self, layers: list[ConditionalDecoderLayer], head: PredictionHead, channels: int, eps: float = 1e-3
    ) -> None:
        super().__init__()
        self.layers, self.prediction_head, self.norm = nn.ModuleList(layers), head, nn.LayerNorm(channels)
        self.scale = MLP(channels, channels, channels, 2)
        self.size = MLP(channels, channels, 2, 2)
        self.position = MLP(2 * channels, channels, channels, 2)
        self.channels, self.eps = channels, eps

    def forward(
        self, queries: Queries, memory: Tokens, attention_mask: Tensor | None = None, recollect: bool = False
    ) -> DecoderOutput:
        """Return the output of all layers; the gradient of a layer's box also reaches the layer before.

        Args:
            attention_mask: (Q,Q) or (B,Q,Q) bool, True where the row's query may not attend to the column's.
            recollect: as in ``DeformableDecoder``.
        """
        x, references = queries.content, queries.references
        logits: list[Tensor] = []
        boxes: list[Tensor] = []
        start = references
        older: State = (x, references, start)
        for i, layer in enumerate(self.layers):
            sets = x.shape[1] // queries.content.shape[1]
            encoded = box_sine(references, self.channels // 2, YXWH)
            sines = encoded[..., : self.channels] * (1 if i == 0 else self.scale(x))
            sines = self._modulate(sines, x, references)
            x = layer(x, self.position(encoded), sines, memory, attention_mask, sets)
            class_logits, offsets = self.prediction_head(self.norm(x))
            logits += class_logits.chunk(sets, 1)
            boxes += refine_boxes(start, offsets, self.eps).chunk(sets, 1)
            start = refine_boxes(references, self.prediction_head.box_offsets(x), 1e-5)
            references = start.detach()
            if recollect:
                newer = (x, references, start)
                (x, references, start), older = collect(older, newer), newer
        return DecoderOutput(torch.stack(logits), torch.stack(boxes))

    def _modulate(self, sines: Tensor, x: Tensor, references: Tensor) -> Tensor:
        """Multiply sines (y half, x half) by the predicted height and width over the anchor's (width and height
        modulation)."""
        ratio = self.size(x).float().sigmoid() / references[..., 2:].clamp(min=MIN_SIDE)
        y_half, x_half = sines.chunk(2, -1)
        return torch.cat((y_half * ratio[..., 1:], x_half * ratio[..., :1]), -1)


class ScaledEncoder(nn.Module):
    """Encoder of DAB-DETR: every layer scales the positions by a function of the tokens' values."""

    def __init__(self, layers: list[EncoderLayer], channels: int) -> None:
        super().__init__()
        self.layers, self.scale = nn.ModuleList(layers), MLP(channels, channels, channels, 2)

    def forward(self, tokens: Tokens) -> Tokens:
        for layer in self.layers:
            scaled = replace(tokens, positions=tokens.positions * self.scale(tokens.values))
            tokens = replace(tokens, values=layer(scaled))
        return tokens


class PointQueries(nn.Module):
    """Queries of Conditional-DETR: learned positions, reference points computed from them, and zero content."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.embedding, self.point = nn.Embedding(count, channels), MLP(channels, channels, 2, 2)

    def forward(self, tokens: Tokens) -> Queries:
        positions = self.embedding.weight.expand(tokens.values.shape[0], -1, -1)
        return Queries(torch.zeros_like(positions), self.point(positions).float().sigmoid(), positions)


class AnchorQueries(nn.Module):
    """Queries of DAB-DETR: learned anchor boxes and zero content."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.channels, self.anchors = channels, nn.Embedding(count, 4)

    def forward(self, tokens: Tokens) -> Queries:
        boxes = self.anchors.weight.float().sigmoid().expand(tokens.values.shape[0], -1, -1)
        return Queries(boxes.new_zeros(*boxes.shape[:2], self.channels), boxes)


def attend(query: Tensor, key: Tensor, value: Tensor, *, heads: int, allowed: Tensor | None, dropout: float) -> Tensor:
    """Compute multi-head softmax attention of queries (B,Q,·) over keys (B,N,·) with values (B,N,C); returns (B,Q,C).

    Args:
        allowed: bool, broadcast to (B,heads,Q,N), True where attention is allowed; None: everywhere.
    """
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (query, key, value))
    return scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout).transpose(1, 2).flatten(2)
