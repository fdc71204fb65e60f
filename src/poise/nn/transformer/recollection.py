"""Selective query recollection (SQR: Chen et al. 2023): decoder layers also process the queries of earlier layers.

In a decoder the queries of a layer come from the layer before alone. SQR makes each layer process, in training, the
output of the two layers before it (the first layer the initial queries, the second the initial queries and the first
layer's output). A layer then processes 1, 2, 3, 5, 8, ... sets of queries, every set is supervised by a matching of its
own, and later layers receive more supervision. Inference does not change.

Sets are concatenated along the query axis, the older ones first, so that the last set is the ordinary chain of layers.
Cross-attention treats queries independently; self-attention is among the queries of one set.
"""

from __future__ import annotations

import torch
from torch import Tensor

State = tuple[Tensor, ...]  # tensors (B,S*Q,...) that a layer passes to the next


def collect(older: State, newer: State) -> State:
    """Concatenate the sets of queries that the next layer processes."""
    return tuple(torch.cat(pair, 1) for pair in zip(older, newer, strict=True))


def repeat_sets(values: Tensor | None, sets: int) -> Tensor | None:
    """Repeat (B,Q,...) for each of the sets, (B,S*Q,...)."""
    return values if values is None or sets == 1 else values.repeat(1, sets, 1)
