"""Co-DETR (Zong et al. 2023): DETRs with collaborative hybrid assignments training.

A DETR's one-to-one matching supervises one query for each object, which trains encoder and decoder inefficiently. In
training, auxiliary heads with one-to-many assignment (ATSS, Faster R-CNN, others by name) are added to the encoder's
output, and customized positive queries made from their positives to the decoder's queries. Inference uses neither: a
Co-Deformable-DETR is then a Deformable-DETR++, a Co-DINO a DINO.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from poise.assign import Hungarian
from poise.criteria.set_prediction import SetCriterion
from poise.detectors import QueryDetector
from poise.detectors.collaboration import BoxFeatureQueryGenerator, BoxQueryGenerator
from poise.models.auxiliary import collaboration
from poise.models.auxiliary_dense import AuxiliarySpec, with_coarser
from poise.models.deformable_detr import deformable_layers
from poise.models.dino import contrastive_denoising
from poise.models.groups import AuxiliaryOptions, BackboneOptions, DeformableOptions, DenoisingOptions
from poise.models.options import flat_options
from poise.models.parts import query_backbone, query_class_supervision, query_neck
from poise.nn.transformer.deformable import BoxPosition, DeformableDecoder
from poise.nn.transformer.layers import PredictionHead
from poise.nn.transformer.queries import MixedPositionedQueries, MixedQueries, SelectedQueries, first_class
from poise.nn.transformer.tokens import ChannelMapper, Tokenizer
from poise.postprocess import SoftNMSPostProcess, TopKPostProcess


@flat_options
def co_deformable_detr(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    drop_path: float = 0.0,
    auxiliary: AuxiliaryOptions = AuxiliaryOptions(),
    vector_embedding: bool = False,
    transformer: DeformableOptions = DeformableOptions(),
    class_loss: str = "focal",
    max_detections: int = 100,
    deterministic: bool = False,
) -> QueryDetector:
    """Build Co-Deformable-DETR on four levels, strides 8 to 64.

    Args:
        drop_path: stochastic depth of a Swin backbone.
        vector_embedding: learn a vector as the embedding of a head (article) instead of one number (published).
        class_loss: ``focal`` with class targets of 1; ``quality_focal``, ``varifocal`` or a loss of matched labels such
            as ``matchability(gamma=1.5)`` with IoUs (docs/criteria.md).
        max_detections: kept in each image.
        deterministic: no sampling: heads train on all priors, and their first positives become queries.
    """
    channels, queries = transformer.channels, transformer.queries
    body = query_backbone(backbone, (3, 4, 5), drop_path=0.0 if deterministic else drop_path)
    neck = ChannelMapper(body.channels, body.strides, channels, extra=1)
    levels = len(neck.strides)
    encoder, layers = deformable_layers(transformer, levels)
    generator = MixedPositionedQueries(channels, queries)
    spec = AuxiliarySpec(channels, with_coarser(neck.strides), num_classes, deterministic)
    return QueryDetector(
        backbone=body,
        neck=neck,
        tokenizer=Tokenizer(channels, levels, offset=-0.5),
        encoder=encoder,
        queries=SelectedQueries(channels, num_classes, queries, generator, score=first_class),
        decoder=DeformableDecoder(layers, [PredictionHead(channels, num_classes) for _ in layers], "twice"),
        assigner=Hungarian(),
        criterion=SetCriterion(*query_class_supervision(class_loss), class_weight=2.0),
        postprocess=TopKPostProcess(max_detections),
        collaboration=collaboration(
            auxiliary, spec, partial(BoxFeatureQueryGenerator, channels, vector_embedding), transformer.decoder_layers
        ),
        one_pass=auxiliary.one_pass,
    )


@flat_options
def co_dino(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    drop_path: float = 0.0,
    window: int = 24,
    auxiliary: AuxiliaryOptions = AuxiliaryOptions(),
    query_features: bool = False,
    region_convs: int = 0,
    levels: int = 5,
    transformer: DeformableOptions = DeformableOptions(queries=900),
    denoising: DenoisingOptions = DenoisingOptions(),
    class_loss: str = "quality_focal",
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
        class_loss: ``focal`` with class targets of 1; ``quality_focal``, ``varifocal`` or a loss of matched labels such
            as ``matchability(gamma=1.5)`` with IoUs (docs/criteria.md).
        suppress: apply soft-NMS to the detections, as published; otherwise keep the best as they are.

    The other arguments are those of ``co_deformable_detr``.
    """
    channels, queries = transformer.channels, transformer.queries
    body = query_backbone(
        backbone,
        tuple(range(7 - levels, 6)),
        drop_path=0.0 if deterministic else drop_path,
        window=window,
        checkpointed=transformer.checkpointed_layers > 0,
    )
    neck = query_neck(body, channels)
    encoder, layers = deformable_layers(transformer, levels)
    heads = [PredictionHead(channels, num_classes) for _ in layers]
    spec = AuxiliarySpec(channels, with_coarser(neck.strides), num_classes, deterministic, region_convs)
    position, norm = BoxPosition(channels), nn.LayerNorm(channels)
    return QueryDetector(
        backbone=body,
        neck=neck,
        tokenizer=Tokenizer(channels, levels, temperature=20.0),
        encoder=encoder,
        queries=SelectedQueries(channels, num_classes, queries, MixedQueries(channels, queries)),
        decoder=DeformableDecoder(layers, heads, "twice", position=position, norm=norm, eps=1e-3),
        assigner=Hungarian(),
        criterion=SetCriterion(*query_class_supervision(class_loss), class_weight=1.0),
        postprocess=SoftNMSPostProcess(queries, max_detections) if suppress else TopKPostProcess(max_detections),
        denoising=contrastive_denoising(denoising, num_classes, channels, deterministic),
        collaboration=collaboration(
            auxiliary, spec, partial(BoxQueryGenerator, channels, query_features), transformer.decoder_layers
        ),
        one_pass=auxiliary.one_pass,
    )
