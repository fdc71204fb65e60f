"""Cross-attention maps of a decoder's positive queries (Zong et al. 2023, section 3.4).

The article draws IoF-IoB curves of attention as it does of features, but does not publish how sampled attention is
laid on a grid. Definition used here: the attention weights of all attention heads, sampling points and positive queries
are scattered bilinearly onto the grid of each level, which is the transpose of bilinear sampling. Positive queries are
those that Hungarian matching assigns to an object, for the predictions of the last layer and the queries of inference.
The maps of the levels are then resized to the image, divided by their maximum and averaged, as feature maps are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from poise.detectors.parts import is_query_detector
from poise.detectors.query import to_predictions
from poise.lab.separation import average_levels
from poise.nn.kernels.bilinear_sums import Shape
from poise.nn.transformer.conditional import ConditionalCrossAttention
from poise.nn.transformer.layers import DeformableAttention
from poise.nn.transformer.queries import DecoderOutput
from poise.structures import Batch
from poise.suggestions import plural


class NoCrossAttention(ValueError):
    """The model has no decoder with cross-attention to the image."""


def scatter_bilinear(locations: Tensor, weights: Tensor, shape: Shape) -> Tensor:
    """Scatter weights bilinearly onto a grid, the transpose of bilinear sampling. Returns (H,W).

    Args:
        locations: (M,2) x, y in [0,1] from edge to edge of the grid; weights of locations outside are dropped.
        weights: (M,).
        shape: height and width of the grid.
    """
    height, width = shape
    position = locations.float() * torch.tensor([width, height], device=locations.device) - 0.5
    low = position.floor()
    fraction = position - low
    total = torch.zeros(height * width, device=weights.device)
    for right in (0, 1):
        for down in (0, 1):
            x, y = low[:, 0] + right, low[:, 1] + down
            factor_x = fraction[:, 0] if right else 1 - fraction[:, 0]
            factor_y = fraction[:, 1] if down else 1 - fraction[:, 1]
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            index = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long()
            total = total.index_add(0, index, torch.where(inside, factor_x * factor_y * weights.float(), 0.0))
    return total.reshape(height, width)


def deformable_attention_maps(locations: Tensor, weights: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """Maps (H_l,W_l) of deformable attention: ``locations`` (Q,H,L,P,2) and ``weights`` (Q,H,L,P) of one image."""
    return [
        scatter_bilinear(locations[:, :, i].flatten(0, 2), weights[:, :, i].flatten(), shape)
        for i, shape in enumerate(shapes)
    ]


def dense_attention_maps(weights: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """Maps (H_l,W_l) of attention to all tokens, ``weights`` (Q,H,N) of one image."""
    parts = weights.sum((0, 1)).split([height * width for height, width in shapes])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


@dataclass(frozen=True)
class AttentionMaps:
    """Cross-attention of the positive queries of one image."""

    maps: list[Tensor]  # (H_l,W_l) of each level, weights summed over queries, heads and points
    num_queries: int  # positive queries

    def score_map(self, canvas: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Average of the levels, (h,w) in [0,1]; compare ``separation.discriminability``."""
        return average_levels(self.maps, canvas, size)


@torch.no_grad()
def positive_query_attention(
    network: nn.Module, batch: Batch, layer: int = -1, name: str = "this model"
) -> list[AttentionMaps]:
    """Cross-attention of the positive queries of each image in decoder layer ``layer``, for the queries of inference.

    Raises:
        NoCrossAttention: not a model of the DETR family.
        ValueError: the decoder has no such layer.
    """
    if not is_query_detector(network):
        raise NoCrossAttention(
            f"'{name}' has no decoder with cross-attention: take a model of the DETR family (poise models '*detr*', "
            "'*dino*'), or poise lab discriminability, which reads the features of any model"
        )
    with record_cross_attention(network.decoder) as calls:
        memory = network.encode(batch.pixels, batch.truth.sizes)
        queries = network.inference_queries(memory)
        output: DecoderOutput = network.decoder(queries, memory)
    if not -len(calls) <= layer < len(calls):
        raise ValueError(
            f"layer {layer}: the decoder of '{name}' has {plural(len(calls), 'layer')}, 0 to {len(calls) - 1}"
        )
    last = DecoderOutput(output.logits[-1:].float(), output.boxes[-1:].float())
    positive = network.assigner(to_predictions(last, queries.references, batch.truth.sizes), batch.truth).positive
    module, inputs = calls[layer]
    return [
        AttentionMaps(_maps(module, inputs, image, positive[image], memory.shapes), int(positive[image].sum()))
        for image in range(len(positive))
    ]


def _maps(module: Any, inputs: tuple[Any, ...], image: int, mask: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    if isinstance(module, DeformableAttention):
        locations, weights = module.sampling_points(*inputs)
        return deformable_attention_maps(locations[image, mask], weights[image, mask], shapes)
    return dense_attention_maps(module.attention_weights(*inputs)[image, :, mask].transpose(0, 1), shapes)


@contextmanager
def record_cross_attention(decoder: nn.Module) -> Iterator[list[tuple[nn.Module, tuple[Tensor, ...]]]]:
    """Record the cross-attention modules of a decoder with the inputs of each call, in the order of the calls."""
    calls: list[tuple[nn.Module, tuple[Tensor, ...]]] = []
    kinds = (DeformableAttention, ConditionalCrossAttention)
    hooks = [
        module.register_forward_hook(lambda module, inputs, _: calls.append((module, inputs)))
        for module in decoder.modules()
        if isinstance(module, kinds)
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
