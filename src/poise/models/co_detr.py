"""Co-DETR (Zong et al. 2023): DETRs that learn from the many positives of one-to-many heads.

A DETR's matching gives every object one query, too few positives to teach an encoder what an object looks like. So in
training the encoder's memory is made a pyramid again, on which ordinary heads (ATSS, Faster R-CNN, others by name)
learn beside the decoder; and what they assigned positive becomes further queries of the decoder. Inference has none of
it: a Co-Deformable-DETR runs as a Deformable-DETR, a Co-DINO as a DINO.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from poise import losses
from poise.assign import Hungarian
from poise.criteria.set_prediction import SetCriterion, iou_of_normalized_boxes
from poise.detectors import QueryDetector
from poise.detectors.collaboration import BoxAndFeatures, BoxContent
from poise.models.auxiliary import collaboration
from poise.models.auxiliary_dense import AuxiliarySpec, with_coarser
from poise.models.deformable_detr import init_deformable
from poise.models.parts import Weights, query_backbone, query_neck
from poise.nn.necks.channel_mapper import ChannelMapper
from poise.nn.transformer.deformable import (
    BoxPosition,
    DeformableDecoder,
    DeformableDecoderLayer,
    DeformableEncoderLayer,
)
from poise.nn.transformer.denoising import ContrastiveDenoising
from poise.nn.transformer.layers import Encoder
from poise.nn.transformer.queries import MixedPositionedQueries, MixedQueries, Output, SelectedQueries, first_class
from poise.nn.transformer.tokens import Tokenizer
from poise.postprocess import SoftNMSPostProcess, TopKPostProcess
from poise.sample.positives_first import PositivesFirst

HEADS = "faster_rcnn,atss"


def co_deformable_detr(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    drop_path: float = 0.0,
    heads: str = HEADS,
    head_weight: float = 2.0,
    auxiliary_query_weight: float = 1.0,
    lent: int = 300,
    fill: bool = True,
    wide: bool = False,
    one_pass: bool = True,
    regions: int = 512,
    region_hidden: int = 1024,
    channels: int = 256,
    attention_heads: int = 8,
    points: int = 4,
    hidden: int = 2048,
    encoder_layers: int = 6,
    decoder_layers: int = 6,
    queries: int = 300,
    checkpointed_layers: int = 0,
    max_detections: int = 100,
    deterministic: bool = False,
) -> QueryDetector:
    """Co-Deformable-DETR on four levels.

    Args:
        drop_path: stochastic depth of a Swin backbone.
        heads: auxiliary heads, names of ``models.auxiliary.AUXILIARY`` with commas between; an empty string makes the
            plain detector (for Co-Deformable-DETR that is Deformable-DETR++).
        head_weight: of their losses against those of one decoder layer (the article's lambda_2).
        auxiliary_query_weight: of the losses of the queries that they lend (the article's lambda_1).
        lent: queries that a head lends an image at most.
        fill: images with fewer positives than others lend negatives too (published); else positives alone (article).
        wide: a head's embedding is a vector (article) instead of one number (published).
        one_pass: lent queries in the decoder's one pass; else a pass for each head's (the same, with less memory).
        regions, region_hidden: that Faster R-CNN's second stage learns from, of an image; the width of its layers.
        hidden: width of the feed-forward layers.
        checkpointed_layers: encoder layers that save memory by computing their activations again in the backward pass.
        max_detections: detections kept in each image.
        deterministic: no sampling: heads learn from all places, and lend the first.
    """
    body = query_backbone(backbone, (3, 4, 5), backbone_weights, frozen_stages, norm_eval, drop_path, deterministic)
    neck = ChannelMapper(body.channels, body.strides, channels, extra=1)
    levels = len(neck.strides)
    sizes = (channels, attention_heads, levels, points, hidden, 0.0)
    memory = Encoder([DeformableEncoderLayer(*sizes) for _ in range(encoder_layers)], checkpointed_layers)
    layers = [DeformableDecoderLayer(*sizes) for _ in range(decoder_layers)]
    init_deformable(memory, *layers)
    sampler = PositivesFirst(lent, fill=fill, random=not deterministic)
    site = AuxiliarySpec(channels, with_coarser(neck.strides), num_classes, deterministic, regions, region_hidden)
    lend = partial(BoxAndFeatures, channels, wide)
    make = MixedPositionedQueries(channels, queries)
    return QueryDetector(
        body,
        neck,
        Tokenizer(channels, levels, offset=-0.5),
        memory,
        SelectedQueries(channels, num_classes, queries, make, first_class),
        DeformableDecoder(layers, [Output(channels, num_classes) for _ in layers], "twice"),
        Hungarian(),
        SetCriterion(class_weight=2.0),
        TopKPostProcess(max_detections),
        collaboration=collaboration(heads, site, lend, sampler, head_weight * decoder_layers, auxiliary_query_weight),
        one_pass=one_pass,
    )


def co_dino(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    drop_path: float = 0.0,
    window: int = 24,
    heads: str = HEADS,
    head_weight: float = 2.0,
    auxiliary_query_weight: float = 1.0,
    lent: int = 300,
    fill: bool = True,
    features: bool = False,
    one_pass: bool = True,
    regions: int = 512,
    region_hidden: int = 1024,
    region_convs: int = 0,
    levels: int = 5,
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
    checkpointed_layers: int = 0,
    max_detections: int = 300,
    suppress: bool = True,
    deterministic: bool = False,
) -> QueryDetector:
    """Co-DINO: DINO with auxiliary heads, and classes that are taught the IoU of their box (quality focal loss).

    Args:
        window: side of an EVA-02 backbone's windows in tokens: 24 (COCO's) or 16 (LVIS's).
        region_convs: convolutions of the second stage, whose boxes then serve all classes (4 with EVA-02 on COCO).
        features: lent queries also hold what their head saw at their place (article); published is the box alone.
        levels: 5 (strides 4 to 64) or 4 (strides 8 to 64).
        denoising: pairs of denoising queries of an image at most; 0: none. Noise: see ``nn.denoising``.
        suppress: soft-NMS of the detections, as published; else the best answers as they are.

    The others are those of ``co_deformable_detr``.
    """
    stages = tuple(range(7 - levels, 6))
    again = checkpointed_layers > 0
    trained = (backbone_weights, frozen_stages, norm_eval, drop_path, deterministic, window, again)
    body = query_backbone(backbone, stages, *trained)
    neck = query_neck(body, channels)
    sizes = (channels, attention_heads, levels, points, hidden, 0.0)
    memory = Encoder([DeformableEncoderLayer(*sizes) for _ in range(encoder_layers)], checkpointed_layers)
    layers = [DeformableDecoderLayer(*sizes) for _ in range(decoder_layers)]
    init_deformable(memory, *layers)
    outputs = [Output(channels, num_classes) for _ in layers]
    noise = (0.0, 0.0) if deterministic else (label_noise, box_noise)
    sampler = PositivesFirst(lent, fill=fill, random=not deterministic)
    site = AuxiliarySpec(
        channels, with_coarser(neck.strides), num_classes, deterministic, regions, region_hidden, region_convs
    )
    lend = partial(BoxContent, channels, features)
    return QueryDetector(
        body,
        neck,
        Tokenizer(channels, levels, temperature=20.0),
        memory,
        SelectedQueries(channels, num_classes, queries, MixedQueries(channels, queries)),
        DeformableDecoder(layers, outputs, "twice", BoxPosition(channels), nn.LayerNorm(channels), eps=1e-3),
        Hungarian(),
        SetCriterion(losses.quality_focal, iou_of_normalized_boxes, class_weight=1.0),
        SoftNMSPostProcess(queries, max_detections) if suppress else TopKPostProcess(max_detections),
        ContrastiveDenoising(num_classes, channels, denoising, *noise) if denoising else None,
        collaboration(heads, site, lend, sampler, head_weight * decoder_layers, auxiliary_query_weight),
        one_pass=one_pass,
    )
