"""Parts shared by the transformers of the DETR family: layers, the encoder, and the heads that predict boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

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
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        nn.init.constant_(last.bias[2:], log_size)  # type: ignore[index]

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
