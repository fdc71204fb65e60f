"""Co-DETR (Zong et al. 2023): DETRs with collaborative hybrid assignments training.

A DETR's one-to-one matching supervises one query for each object, which trains encoder and decoder inefficiently. In
training, auxiliary heads with one-to-many assignment (ATSS, Faster R-CNN, others by name) are added to the encoder's
output, and customized positive queries made from their positives to the decoder's queries. Inference uses neither: a
Co-Deformable-DETR is then a Deformable-DETR++, a Co-DINO a DINO.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from poise import losses
from poise.assign import Hungarian
from poise.criteria.set_prediction import SetCriterion, iou_of_normalized_boxes
from poise.detectors import QueryDetector
from poise.detectors.collaboration import BoxFeatureQueryGenerator, BoxQueryGenerator, PositiveQuerySampler
from poise.models.auxiliary import collaboration
from poise.models.auxiliary_dense import AuxiliarySpec, with_coarser
from poise.models.deformable_detr import deformable_layers
from poise.models.parts import Weights, query_backbone, query_neck
from poise.nn.necks.channel_mapper import ChannelMapper
from poise.nn.transformer.deformable import BoxPosition, DeformableDecoder
from poise.nn.transformer.denoising import ContrastiveDenoising
from poise.nn.transformer.layers import PredictionHead
from poise.nn.transformer.queries import MixedPositionedQueries, MixedQueries, SelectedQueries, first_class
from poise.nn.transformer.tokens import Tokenizer
from poise.postprocess import SoftNMSPostProcess, TopKPostProcess

AUXILIARY_HEADS = "faster_rcnn,atss"


def co_deformable_detr(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    drop_path: float = 0.0,
    auxiliary_heads: str = AUXILIARY_HEADS,
    auxiliary_head_weight: float = 2.0,
    auxiliary_query_weight: float = 1.0,
    max_auxiliary_queries: int = 300,
    pad_with_negatives: bool = True,
    vector_embedding: bool = False,
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
    """Build Co-Deformable-DETR on four levels, strides 8 to 64.

    Args:
        drop_path: stochastic depth of a Swin backbone.
        auxiliary_heads: names of ``models.auxiliary.AUXILIARY`` separated by commas; an empty string builds
            Deformable-DETR++.
        auxiliary_head_weight: of the heads' losses relative to those of one decoder layer (lambda_2).
        auxiliary_query_weight: of the losses of customized positive queries (lambda_1).
        max_auxiliary_queries: customized positive queries that a head makes in an image.
        pad_with_negatives: add random negatives in images with fewer positives than others (published); otherwise
            positives alone (article).
        vector_embedding: learn a vector as the embedding of a head (article) instead of one number (published).
        one_pass: decode all queries in one pass; otherwise those of each head in a pass of their own (equal results,
            less memory).
        regions, region_hidden: regions of an image that train Faster R-CNN's second stage, and the width of its layers.
        points: sampled by each attention head on each level.
        hidden: width of the feed-forward networks.
        checkpointed_layers: number of encoder layers whose activations are recomputed in the backward pass.
        max_detections: kept in each image.
        deterministic: no sampling: heads train on all priors, and their first positives become queries.
    """
    body = query_backbone(backbone, (3, 4, 5), backbone_weights, frozen_stages, norm_eval, drop_path, deterministic)
    neck = ChannelMapper(body.channels, body.strides, channels, extra=1)
    levels = len(neck.strides)
    sizes = (channels, attention_heads, levels, points, hidden, 0.0)
    encoder, layers = deformable_layers(sizes, encoder_layers, decoder_layers, checkpointed_layers)
    generator = MixedPositionedQueries(channels, queries)
    sampler = PositiveQuerySampler(max_auxiliary_queries, 9, pad_with_negatives, random=not deterministic)
    spec = AuxiliarySpec(channels, with_coarser(neck.strides), num_classes, deterministic, regions, region_hidden)
    return QueryDetector(
        backbone=body,
        neck=neck,
        tokenizer=Tokenizer(channels, levels, offset=-0.5),
        encoder=encoder,
        queries=SelectedQueries(channels, num_classes, queries, generator, first_class),
        decoder=DeformableDecoder(layers, [PredictionHead(channels, num_classes) for _ in layers], "twice"),
        assigner=Hungarian(),
        criterion=SetCriterion(class_weight=2.0),
        postprocess=TopKPostProcess(max_detections),
        collaboration=collaboration(
            auxiliary_heads,
            spec,
            query_generator=partial(BoxFeatureQueryGenerator, channels, vector_embedding),
            sampler=sampler,
            head_weight=auxiliary_head_weight * decoder_layers,
            query_weight=auxiliary_query_weight,
        ),
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
    auxiliary_heads: str = AUXILIARY_HEADS,
    auxiliary_head_weight: float = 2.0,
    auxiliary_query_weight: float = 1.0,
    max_auxiliary_queries: int = 300,
    pad_with_negatives: bool = True,
    query_features: bool = False,
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
    """Build Co-DINO: DINO with auxiliary heads and the quality focal loss, whose class targets are IoUs.

    Args:
        window: side of an EVA-02 backbone's attention windows in tokens: 24 (COCO) or 16 (LVIS).
        region_convs: 3x3 convolutions of Faster R-CNN's second stage, whose boxes are then class-agnostic (4 with
            EVA-02 on COCO).
        query_features: add the features of the head's prior to a customized positive query (article); the published
            form uses its box alone.
        levels: 5 (strides 4 to 64) or 4 (strides 8 to 64).
        denoising: maximum number of pairs of denoising queries in an image; 0: none.
        label_noise, box_noise: see ``ContrastiveDenoising``.
        suppress: apply soft-NMS to the detections, as published; otherwise keep the best as they are.

    The other arguments are those of ``co_deformable_detr``.
    """
    trained = (backbone_weights, frozen_stages, norm_eval, drop_path, deterministic, window, checkpointed_layers > 0)
    body = query_backbone(backbone, tuple(range(7 - levels, 6)), *trained)
    neck, noise = query_neck(body, channels), (0.0, 0.0) if deterministic else (label_noise, box_noise)
    sizes = (channels, attention_heads, levels, points, hidden, 0.0)
    encoder, layers = deformable_layers(sizes, encoder_layers, decoder_layers, checkpointed_layers)
    heads = [PredictionHead(channels, num_classes) for _ in layers]
    strides = with_coarser(neck.strides)
    sampler = PositiveQuerySampler(max_auxiliary_queries, 9, pad_with_negatives, random=not deterministic)
    spec = AuxiliarySpec(channels, strides, num_classes, deterministic, regions, region_hidden, region_convs)
    position, norm = BoxPosition(channels), nn.LayerNorm(channels)
    return QueryDetector(
        backbone=body,
        neck=neck,
        tokenizer=Tokenizer(channels, levels, temperature=20.0),
        encoder=encoder,
        queries=SelectedQueries(channels, num_classes, queries, MixedQueries(channels, queries)),
        decoder=DeformableDecoder(layers, heads, "twice", position=position, norm=norm, eps=1e-3),
        assigner=Hungarian(),
        criterion=SetCriterion(losses.quality_focal, iou_of_normalized_boxes, class_weight=1.0),
        postprocess=SoftNMSPostProcess(queries, max_detections) if suppress else TopKPostProcess(max_detections),
        denoising=ContrastiveDenoising(num_classes, channels, denoising, *noise) if denoising else None,
        collaboration=collaboration(
            auxiliary_heads,
            spec,
            query_generator=partial(BoxQueryGenerator, channels, query_features),
            sampler=sampler,
            head_weight=auxiliary_head_weight * decoder_layers,
            query_weight=auxiliary_query_weight,
        ),
        one_pass=one_pass,
    )
