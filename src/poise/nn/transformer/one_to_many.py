"""Predictions of a decoder layer for one-to-many supervision of its queries (MS-DETR: Zhao et al. 2024, section 3).

Training alone computes them. The queries are those of inference; there are no additional ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import Tensor, nn

from poise.nn.transformer.layers import FeedForward, PredictionHead, init_xavier

Predict = Callable[[Tensor], tuple[Tensor, Tensor]]


class LocatedBranch(nn.Module):
    """Predicts from the queries after cross-attention, by a feed-forward network and the head of the layer.

    The feed-forward network is the branch's own (as in the authors' code); the prediction head is that of the
    one-to-one predictions.
    """

    def __init__(self, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.feed_forward, self.norm = FeedForward(channels, hidden, dropout), nn.LayerNorm(channels)
        init_xavier(self)

    def forward(self, output: Tensor, located: Tensor, head: Predict, norm: nn.Module | None) -> tuple[Tensor, Tensor]:
        """Return logits (B,Q,classes) and box offsets (B,Q,4).

        Args:
            output: (B,Q,C) queries after the layer.
            located: (B,Q,C) queries after its cross-attention.
            head: the prediction head of the layer.
            norm: what is applied to queries before a prediction head.
        """
        hidden = self.norm(self.feed_forward(located))
        return head(hidden if norm is None else norm(hidden))


class OutputBranch(nn.Module):
    """Predicts from the queries after the layer, by a prediction head of its own (figure 4a of the paper)."""

    def __init__(self, head: PredictionHead) -> None:
        super().__init__()
        self.prediction_head = copy.deepcopy(head)

    def forward(self, output: Tensor, located: Tensor, head: Predict, norm: nn.Module | None) -> tuple[Tensor, Tensor]:
        """Return logits and box offsets; arguments as of ``LocatedBranch``."""
        predicted: tuple[Tensor, Tensor] = self.prediction_head(output if norm is None else norm(output))
        return predicted
