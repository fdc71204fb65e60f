"""Where a decoder's positive queries look: cross-attention as maps over the image (Zong et al. 2023, section 3.4).

The article draws the same IoF-IoB curves for attention as for features; how it lays sampled attention on a grid is not
published. Definitions taken here: the attention weights of all heads, points and positive queries (those that the
Hungarian matching of the last layer gives an object, at inference's own queries) are scattered bilinearly onto each
level's grid, which is the transpose of how they were read; then the levels are treated as levels of features are: each
resized to the image and divided by its maximum, and averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from poise.detectors.query import QueryDetector, predictions_of
from poise.lab.separation import mean_of_levels
from poise.nn.transformer.conditional import ConditionalCrossAttention
from poise.nn.transformer.deformable_attention import DeformableAttention
from poise.nn.transformer.queries import DecoderOutput
from poise.nn.transformer.tokens import Shape
from poise.structures import Batch


class NoAttention(ValueError):
    """The model has no decoder whose cross-attention could be looked at."""


def splat(locations: Tensor, weights: Tensor, shape: Shape) -> Tensor:
    """Weights scattered bilinearly onto a grid, (H,W): what a bilinear sample reads there, it leaves there.

    Args:
        locations: (M,2) x, y in shares of the map from edge to edge; what falls outside is lost.
        weights: (M,).
        shape: height and width of the grid.
    """
    height, width = shape
    place = locations.float() * torch.tensor([width, height], device=locations.device) - 0.5
    low = place.floor()
    over = place - low
    total = torch.zeros(height * width, device=weights.device)
    for right in (0, 1):
        for down in (0, 1):
            x, y = low[:, 0] + right, low[:, 1] + down
            share = (over[:, 0] if right else 1 - over[:, 0]) * (over[:, 1] if down else 1 - over[:, 1])
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            index = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long()
            total = total.index_add(0, index, torch.where(inside, share * weights.float(), 0.0))
    return total.reshape(height, width)


def sampled_maps(locations: Tensor, weights: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """Maps (H_l,W_l) of deformable attention: ``locations`` (Q,H,L,P,2) and ``weights`` (Q,H,L,P) of one image."""
    return [
        splat(locations[:, :, i].flatten(0, 2), weights[:, :, i].flatten(), shape) for i, shape in enumerate(shapes)
    ]


def dense_maps(weights: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """Maps (H_l,W_l) of attention to all tokens, ``weights`` (Q,H,N) of one image."""
    parts = weights.sum((0, 1)).split([height * width for height, width in shapes])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


@dataclass(frozen=True)
class Looked:
    """Where the positive queries of one image looked."""

    maps: list[Tensor]  # (H_l,W_l) of each level, summed weights
    queries: int  # positive ones

    def scores(self, canvas: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """(h,w) in [0,1], as ``separation.discriminability`` of features."""
        return mean_of_levels(self.maps, canvas, size)


@torch.no_grad()
def attention_of_positives(network: nn.Module, batch: Batch, layer: int = -1, name: str = "this model") -> list[Looked]:
    """Where the positive queries of each image look in a decoder's ``layer``, in the queries of inference.

    Raises:
        NoAttention: not a model of the DETR family.
        ValueError: the decoder has no such layer.
    """
    if not isinstance(network, QueryDetector):
        raise NoAttention(
            f"'{name}' has no decoder that looks at the image: take a model of the DETR family (poise models '*detr*', "
            "'*dino*'), or poise lab discriminability, which reads any model's features"
        )
    with watched(network.decoder) as calls:
        memory = network.encode(batch.pixels, batch.truth.sizes)
        queries = network.asked(memory)
        answers: DecoderOutput = network.decoder(queries, memory)
    if not -len(calls) <= layer < len(calls):
        raise ValueError(f"layer {layer}: the decoder of '{name}' has {len(calls)} layers, 0 to {len(calls) - 1}")
    last = DecoderOutput(answers.logits[-1:].float(), answers.boxes[-1:].float())
    positive = network.assigner(predictions_of(last, queries.references, batch.truth.sizes), batch.truth).positive
    module, words = calls[layer]
    return [
        Looked(_maps(module, words, image, positive[image], memory.shapes), int(positive[image].sum()))
        for image in range(len(positive))
    ]


def _maps(module: Any, words: tuple[Any, ...], image: int, chosen: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    if isinstance(module, DeformableAttention):
        locations, weights = module.look(*words)
        return sampled_maps(locations[image, chosen], weights[image, chosen], shapes)
    return dense_maps(module.look(*words)[image, :, chosen].transpose(0, 1), shapes)


@contextmanager
def watched(decoder: nn.Module) -> Iterator[list[tuple[nn.Module, tuple[Any, ...]]]]:
    """The cross-attention modules of a decoder with what each was called with, in the order of the calls."""
    calls: list[tuple[nn.Module, tuple[Any, ...]]] = []
    kinds = (DeformableAttention, ConditionalCrossAttention)
    hooks = [
        module.register_forward_hook(lambda module, words, _: calls.append((module, words)))
        for module in decoder.modules()
        if isinstance(module, kinds)
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
