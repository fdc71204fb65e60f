"""What transformers of the DETR family are built from: feed-forward networks, self-attention, the plain encoder."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from poise.nn.transformer.tokens import Tokens


class MLP(nn.Module):
    """Linear layers with ReLU between."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int, depth: int) -> None:
        super().__init__()
        widths = [in_channels, *[hidden] * (depth - 1), out_channels]
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(widths)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class FeedForward(nn.Module):
    """Two linear layers, added to what they read."""

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
    """Attention among tokens that know their positions, added to the tokens."""

    def __init__(self, channels: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__(channels, heads, dropout, batch_first=True)
        self.drop = nn.Dropout(dropout)

    def forward(  # type: ignore[override]
        self, x: Tensor, positions: Tensor, blocked: Tensor | None = None, padding: Tensor | None = None
    ) -> Tensor:
        """(B,N,C); ``blocked`` (B|,N,N) is true where rows must not see columns, ``padding`` (B,N) is never seen."""
        seen = x + positions
        if blocked is not None and blocked.ndim == 3:
            blocked = blocked.repeat_interleave(self.num_heads, 0)
        found, _ = super().forward(seen, seen, x, padding, need_weights=False, attn_mask=blocked)
        return x + self.drop(found)


class EncoderLayer(nn.Module):
    """Self-attention among all tokens (Carion et al. 2020)."""

    def __init__(
        self,
        channels: int,
        heads: int,
        hidden: int,
        dropout: float = 0.0,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(channels, heads, dropout)
        self.feed_forward = FeedForward(channels, hidden, dropout, activation)
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(2)])

    def forward(self, tokens: Tokens) -> Tensor:
        x = self.norms[0](self.attention(tokens.values, tokens.positions, padding=tokens.padding))
        return self.norms[1](self.feed_forward(x))


class Encoder(nn.Module):
    """Layers one after another.

    Args:
        layers: each maps ``Tokens`` to values (B,N,C).
        recomputed: the first so many layers keep no activations for the backward pass but compute them again.
    """

    def __init__(self, layers: list[nn.Module], recomputed: int = 0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.recomputed = recomputed

    def forward(self, tokens: Tokens) -> Tokens:
        for i, layer in enumerate(self.layers):
            again = i < self.recomputed and torch.is_grad_enabled()
            values = checkpoint(layer, tokens, use_reentrant=False) if again else layer(tokens)
            tokens = tokens.with_values(values)
        return tokens


def init_xavier(*modules: nn.Module) -> None:
    """Xavier uniform for every parameter of more than one dimension, as the originals start their transformers."""
    for parameter in (parameter for module in modules for parameter in module.parameters()):
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
