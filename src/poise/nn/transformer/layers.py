"""Parts shared by the transformers of the DETR family: layers, the encoder, and the heads that predict boxes.

Equations are those of Deformable-DETR (Zhu et al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from poise.nn.kernels.deformable_sampling import sample_levels
from poise.nn.layers import prior_bias
from poise.nn.transformer.tokens import Tokens


class MLP(nn.Module):
    """Linear layers with ReLU in between."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int, depth: int) -> None:
        super().__init__()
        widths = [in_channels, *[hidden] * (depth - 1), out_channels]
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(widths)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class FeedForward(nn.Module):
    """Two linear layers with an activation in between and a residual connection."""

    def __init__(
        self, channels: int, hidden: int, dropout: float = 0.0, activation: Callable[[], nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        self.expand, self.contract = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.activation = activation()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.contract(self.dropout(self.activation(self.expand(x)))))


class SelfAttention(nn.MultiheadAttention):
    """Multi-head self-attention with a residual connection; positions are added to queries and keys."""

    def __init__(self, channels: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__(channels, heads, dropout, batch_first=True)
        self.drop = nn.Dropout(dropout)

    def forward(  # type: ignore[override]
        self, x: Tensor, positions: Tensor, attention_mask: Tensor | None = None, padding_mask: Tensor | None = None
    ) -> Tensor:
        """Attend among x (B,N,C).

        Args:
            positions: (B,N,C) encodings.
            attention_mask: (N,N) or (B,N,N) bool, True where the row may not attend to the column.
            padding_mask: (B,N) bool, True for tokens that nothing attends to.
        """
        located = x + positions
        if attention_mask is not None and attention_mask.ndim == 3:
            attention_mask = attention_mask.repeat_interleave(self.num_heads, 0)
        attended, _ = super().forward(located, located, x, padding_mask, need_weights=False, attn_mask=attention_mask)
        return x + self.drop(attended)


class EncoderLayer(nn.Module):
    """Encoder layer of DETR: self-attention among all tokens, then a feed-forward network (Carion et al. 2020)."""

    def __init__(
        self,
        channels: int,
        heads: int,
        hidden: int,
        dropout: float = 0.0,
        *,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(channels, heads, dropout)
        self.feed_forward = FeedForward(channels, hidden, dropout, activation)
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(2)])

    def forward(self, tokens: Tokens) -> Tensor:
        x = self.norms[0](self.attention(tokens.values, tokens.positions, padding_mask=tokens.padding_mask))
        return self.norms[1](self.feed_forward(x))


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


def attend_within_sets(
    attention: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    x: Tensor,
    positions: Tensor,
    attention_mask: Tensor | None,
    *,
    sets: int,
) -> Tensor:
    """Apply self-attention to each of the sets of x (B,S*Q,C), which selective query recollection makes.

    Args:
        attention: ``(x, positions, attention_mask) -> Tensor`` of one set.
        attention_mask: (Q,Q) or (B,Q,Q) bool of one set.
    """
    if sets == 1:
        return attention(x, positions, attention_mask)
    x, positions = (tensor.unflatten(1, (sets, -1)).flatten(0, 1) for tensor in (x, positions))
    if attention_mask is not None and attention_mask.ndim == 3:
        attention_mask = attention_mask.repeat_interleave(sets, 0)
    return attention(x, positions, attention_mask).unflatten(0, (-1, sets)).flatten(1, 2)


class DeformableDecoderLayer(nn.Module):
    """Decoder layer: self-attention among queries, then deformable cross-attention around their references.

    Args:
        cross_first: cross-attention comes before self-attention (MS-DETR).
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        levels: int,
        points: int,
        *,
        hidden: int,
        dropout: float,
        cross_first: bool = False,
    ) -> None:
        super().__init__()
        self.cross_first = cross_first
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
    ) -> tuple[Tensor, Tensor]:
        """Return the queries after the layer, and after its cross-attention."""
        if self.cross_first:
            located = self._attend_to_memory(x, positions, references, memory)
            attended = attend_within_sets(self.self_attention, located, positions, attention_mask, sets=sets)
            return self.norms[2](self.feed_forward(self.norms[0](attended))), located
        attended = attend_within_sets(self.self_attention, x, positions, attention_mask, sets=sets)
        located = self._attend_to_memory(self.norms[0](attended), positions, references, memory)
        return self.norms[2](self.feed_forward(located)), located

    def _attend_to_memory(self, x: Tensor, positions: Tensor, references: Tensor, memory: Tokens) -> Tensor:
        attended = self.cross_attention(x + positions, references, memory)
        return self.norms[1](x + self.dropout(attended))


class TransformerEncoder(nn.Module):
    """A stack of encoder layers.

    Args:
        layers: each maps ``Tokens`` to new values (B,N,C).
        checkpointed: the first so many layers save memory by recomputing their activations in the backward pass.
    """

    def __init__(self, layers: list[nn.Module], checkpointed: int = 0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.checkpointed = checkpointed

    def forward(self, tokens: Tokens) -> Tokens:
        for i, layer in enumerate(self.layers):
            recompute = i < self.checkpointed and torch.is_grad_enabled()
            values = checkpoint(layer, tokens, use_reentrant=False) if recompute else layer(tokens)
            tokens = replace(tokens, values=values)
        return tokens


class PredictionHead(nn.Module):
    """Predicts classes and box offsets of queries in float32: logits overflow and boxes lose precision in float16."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.classes = nn.Linear(channels, num_classes)
        self.box = MLP(channels, channels, 4, 3)
        self.reset_parameters()

    def reset_parameters(self, log_size: float = 0.0) -> None:
        """Start with every class at probability 0.01 and every box at its reference.

        Args:
            log_size: initial offset of width and height, before the sigmoid.
        """
        nn.init.constant_(self.classes.bias, prior_bias())
        last = self.box.layers[-1]
        nn.init.zeros_(last.get_parameter("weight"))
        nn.init.zeros_(last.get_parameter("bias"))
        nn.init.constant_(last.get_parameter("bias")[2:], log_size)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (...,classes) and box offsets (...,4) of hidden states (...,C); see ``refine_boxes``."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.classes(hidden.float()), self.box(hidden.float())

    def box_offsets(self, hidden: Tensor) -> Tensor:
        """Return the box offsets (...,4) alone."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.box(hidden.float())


def refine_boxes(references: Tensor, offsets: Tensor, eps: float) -> Tensor:
    """Return normalized boxes sigmoid(inverse_sigmoid(references) + offsets), (...,4) float32.

    Args:
        references: normalized points or boxes (...,2|4); a point adds nothing to width and height.
        offsets: (...,4).
    """
    start = inverse_sigmoid(references.float(), eps)
    return (offsets + pad(start, (0, 4 - start.shape[-1]))).sigmoid()


def inverse_sigmoid(value: Tensor, eps: float = 1e-5) -> Tensor:
    """Return ln(x / (1 - x)) of x in [0,1]; numerator and denominator are at least ``eps``."""
    value = value.clamp(0, 1)
    return value.clamp(min=eps).log() - (1 - value).clamp(min=eps).log()


def init_xavier(*modules: nn.Module) -> None:
    """Initialize every parameter of more than one dimension by Xavier's uniform distribution."""
    for parameter in (parameter for module in modules for parameter in module.parameters()):
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
