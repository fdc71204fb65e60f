"""DINO (Zhang et al. 2023): the DETR that pulled level with the best, by three ideas on top of its parents.

Contrastive denoising: beside the matching queries others are given shifted objects, to be put right or called nothing.
Mixed selection: queries stand where the encoder proposes boxes, but what they look for is learned. Look forward twice:
a layer's box is corrected by the next layer's loss too.
"""

from __future__ import annotations

from torch import nn

from poise.assign import Hungarian
from poise.criteria import SetCriterion
from poise.detectors import QueryDetector
from poise.models.deformable_detr import init_deformable
from poise.models.further_queries import FurtherQueries
from poise.models.parts import Weights, query_backbone
from poise.nn.necks.channel_mapper import ChannelMapper
from poise.nn.transformer.deformable import (
    BoxPosition,
    DeformableDecoder,
    DeformableDecoderLayer,
    DeformableEncoderLayer,
)
from poise.nn.transformer.denoising import ContrastiveDenoising
from poise.nn.transformer.layers import Encoder
from poise.nn.transformer.queries import MixedQueries, Output, SelectedQueries
from poise.nn.transformer.tokens import Tokenizer
from poise.postprocess import TopKPostProcess


def dino(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    drop_path: float = 0.0,
    levels: int = 4,
    channels: int = 256,
    heads: int = 8,
    points: int = 4,
    hidden: int = 2048,
    encoder_layers: int = 6,
    decoder_layers: int = 6,
    queries: int = 900,
    denoising: int = 100,
    label_noise: float = 0.5,
    box_noise: float = 1.0,
    class_weight: float = 1.0,
    query_groups: int = 1,
    many_queries: int = 0,
    many_repeats: int = 6,
    many_weight: float = 1.0,
    temperature: float = 20.0,
    offset: float = 0.0,
    dropout: float = 0.0,
    checkpointed_layers: int = 0,
    max_detections: int = 300,
    deterministic: bool = False,
) -> QueryDetector:
    """DINO.

    Args:
        drop_path: stochastic depth of a Swin backbone.
        levels: 4 (strides 8 to 64) or 5 (strides 4 to 64).
        hidden: width of the feed-forward layers.
        denoising: pairs of denoising queries of an image at most; 0: no denoising.
        label_noise, box_noise: see ``nn.denoising``.
        class_weight: of the focal loss; the paper's improved recipe takes 2.
        query_groups, many_queries, many_repeats, many_weight: see ``deformable_detr``; denoising queries see the first
            group alone.
        temperature, offset: of the sine encodings; the improved recipe takes 10000 and -0.5.
        checkpointed_layers: encoder layers that save memory by computing their activations again in the backward pass.
        max_detections: detections kept in each image.
        deterministic: no noise and no dropout.
    """
    dropout = 0.0 if deterministic else dropout
    stages = tuple(range(7 - levels, 6))
    body = query_backbone(backbone, stages, backbone_weights, frozen_stages, norm_eval, drop_path, deterministic)
    neck = ChannelMapper(body.channels, body.strides, channels, extra=1)
    encoder = [DeformableEncoderLayer(channels, heads, levels, points, hidden, dropout) for _ in range(encoder_layers)]
    layers = [DeformableDecoderLayer(channels, heads, levels, points, hidden, dropout) for _ in range(decoder_layers)]
    outputs = [Output(channels, num_classes) for _ in range(decoder_layers)]
    memory = Encoder([*encoder], checkpointed_layers)
    init_deformable(memory, *layers)
    noise = (0.0, 0.0) if deterministic else (label_noise, box_noise)
    further = FurtherQueries(queries, query_groups, many_queries, many_repeats, many_weight)

    def selection(count: int) -> SelectedQueries:
        return SelectedQueries(channels, num_classes, count, MixedQueries(channels, count))

    norm = nn.LayerNorm(channels)
    return QueryDetector(
        body,
        neck,
        Tokenizer(channels, levels, temperature, offset),
        memory,
        further.selected(selection),
        DeformableDecoder(layers, outputs, "twice", BoxPosition(channels), norm, eps=1e-3),
        Hungarian(),
        SetCriterion(class_weight=class_weight),
        TopKPostProcess(max_detections),
        ContrastiveDenoising(num_classes, channels, denoising, *noise) if denoising else None,
        **further.of_detector(Hungarian()),
    )
