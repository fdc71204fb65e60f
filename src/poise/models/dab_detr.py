"""DAB-DETR (Liu et al. 2022): dynamic anchor boxes as queries.

Each query is a learned anchor box. Its sine encoding, modulated by the box's width and height, is the positional query
of cross-attention, and every decoder layer refines the box.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from poise.assign import Hungarian
from poise.criteria.set_prediction import SetCriterion, count_on_this_rank
from poise.detectors import QueryDetector
from poise.detectors.collaboration import BoxQueryGenerator
from poise.models.auxiliary import SINGLE_SCALE_STRIDES, single_scale_collaboration
from poise.models.auxiliary_dense import AuxiliarySpec
from poise.models.groups import AuxiliaryOptions, BackboneOptions, TransformerOptions
from poise.models.options import flat_options
from poise.models.parts import query_class_supervision, timm_backbone
from poise.nn.transformer.conditional import AnchorDecoder, AnchorQueries, ConditionalDecoderLayer, ScaledEncoder
from poise.nn.transformer.layers import EncoderLayer, PredictionHead, init_xavier
from poise.nn.transformer.tokens import ChannelMapper, Tokenizer
from poise.postprocess import TopKPostProcess


@flat_options
def dab_detr(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    transformer: TransformerOptions = TransformerOptions(),
    auxiliary: AuxiliaryOptions = AuxiliaryOptions(auxiliary_heads=""),
    class_loss: str = "focal",
    recollect: bool = False,
    dropout: float = 0.0,
    max_detections: int = 300,
    deterministic: bool = False,
) -> QueryDetector:
    """Build DAB-DETR on the backbone's last map, stride 32.

    Args:
        class_loss: ``focal`` with class targets of 1; ``quality_focal``, ``varifocal`` or a loss of matched labels such
            as ``matchability(gamma=1.5)`` with IoUs (docs/criteria.md).
        recollect: selective query recollection in training (see ``deformable_detr``).
        max_detections: kept in each image.
        deterministic: no dropout.
    """
    dropout = 0.0 if deterministic else dropout
    channels, queries = transformer.channels, transformer.queries
    body = timm_backbone(backbone, (5,), train_norm=False)
    neck = ChannelMapper(body.channels, body.strides, channels, groups=0)
    sizes = (channels, transformer.attention_heads, transformer.hidden)
    encoder = [EncoderLayer(*sizes, dropout, activation=nn.PReLU) for _ in range(transformer.encoder_layers)]
    layers = [
        ConditionalDecoderLayer(*sizes, dropout=dropout, first=i == 0, activation=nn.PReLU)
        for i in range(transformer.decoder_layers)
    ]
    init_xavier(*encoder, *layers)
    return QueryDetector(
        backbone=body,
        neck=neck,
        tokenizer=Tokenizer(channels, 0, temperature=20.0),
        encoder=ScaledEncoder(encoder, channels),
        queries=AnchorQueries(channels, queries),
        decoder=AnchorDecoder(layers, PredictionHead(channels, num_classes), channels),
        assigner=Hungarian(eps=1e-8),
        criterion=SetCriterion(
            *query_class_supervision(class_loss), class_weight=1.0, class_normalizer=count_on_this_rank
        ),
        postprocess=TopKPostProcess(max_detections),
        collaboration=single_scale_collaboration(
            auxiliary,
            AuxiliarySpec(channels, SINGLE_SCALE_STRIDES, num_classes, deterministic),
            partial(BoxQueryGenerator, channels),
            transformer.decoder_layers,
        ),
        one_pass=auxiliary.one_pass,
        recollect=recollect,
    )
