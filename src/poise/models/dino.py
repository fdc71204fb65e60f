"""DINO (Zhang et al. 2023): Deformable-DETR with contrastive denoising, mixed query selection and look forward twice.

Contrastive denoising (section 3.3): besides the matched queries the decoder gets noisy objects, to be restored or
rejected. Mixed query selection (section 3.4): references come from the encoder's proposals, contents are learned. Look
forward twice (section 3.5): the loss of a layer's box also trains the layer before.
"""

from __future__ import annotations

from torch import nn

from poise.assign import Hungarian
from poise.criteria import SetCriterion
from poise.detectors import QueryDetector
from poise.models.deformable_detr import deformable_layers
from poise.models.parts import Weights, query_backbone
from poise.models.training_queries import TrainingQueries
from poise.nn.necks.channel_mapper import ChannelMapper
from poise.nn.transformer.deformable import BoxPosition, DeformableDecoder
from poise.nn.transformer.denoising import ContrastiveDenoising
from poise.nn.transformer.layers import PredictionHead
from poise.nn.transformer.queries import MixedQueries, SelectedQueries
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
    attention_heads: int = 8,
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
    one_to_many_queries: int = 0,
    one_to_many_repeats: int = 6,
    one_to_many_weight: float = 1.0,
    temperature: float = 20.0,
    offset: float = 0.0,
    dropout: float = 0.0,
    checkpointed_layers: int = 0,
    max_detections: int = 300,
    deterministic: bool = False,
) -> QueryDetector:
    """Build DINO.

    Args:
        drop_path: stochastic depth of a Swin backbone.
        levels: 4 (strides 8 to 64) or 5 (strides 4 to 64).
        points: sampled by each attention head on each level.
        hidden: width of the feed-forward networks.
        denoising: maximum number of pairs of denoising queries in an image; 0: none.
        label_noise, box_noise: see ``ContrastiveDenoising``.
        class_weight: of the focal loss; the paper's improved recipe uses 2.
        query_groups, one_to_many_queries, one_to_many_repeats, one_to_many_weight: see ``deformable_detr``; denoising
            queries attend to the first group alone.
        temperature, offset: of the sine encodings; the improved recipe uses 10000 and -0.5.
        checkpointed_layers: number of encoder layers whose activations are recomputed in the backward pass.
        max_detections: kept in each image.
        deterministic: no noise and no dropout.
    """
    dropout = 0.0 if deterministic else dropout
    stages = tuple(range(7 - levels, 6))
    body = query_backbone(backbone, stages, backbone_weights, frozen_stages, norm_eval, drop_path, deterministic)
    neck = ChannelMapper(body.channels, body.strides, channels, extra=1)
    sizes = (channels, attention_heads, levels, points, hidden, dropout)
    encoder, layers = deformable_layers(sizes, encoder_layers, decoder_layers, checkpointed_layers)
    heads = [PredictionHead(channels, num_classes) for _ in layers]
    noise = (0.0, 0.0) if deterministic else (label_noise, box_noise)
    training = TrainingQueries(queries, query_groups, one_to_many_queries, one_to_many_repeats, one_to_many_weight)

    def selection(count: int) -> SelectedQueries:
        return SelectedQueries(channels, num_classes, count, MixedQueries(channels, count))

    position, norm = BoxPosition(channels), nn.LayerNorm(channels)
    return QueryDetector(
        backbone=body,
        neck=neck,
        tokenizer=Tokenizer(channels, levels, temperature, offset),
        encoder=encoder,
        queries=training.selected(selection),
        decoder=DeformableDecoder(layers, heads, "twice", position=position, norm=norm, eps=1e-3),
        assigner=Hungarian(),
        criterion=SetCriterion(class_weight=class_weight),
        postprocess=TopKPostProcess(max_detections),
        denoising=ContrastiveDenoising(num_classes, channels, denoising, *noise) if denoising else None,
        **training.detector_options(Hungarian()),
    )
