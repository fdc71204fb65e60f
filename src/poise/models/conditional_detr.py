"""Conditional-DETR (Meng et al. 2021): DETR with conditional cross-attention, which converges in fewer epochs.

Cross-attention compares content and position separately. Each query has a reference point, whose sine encoding is
scaled by a function of the query's hidden state, so that each head attends to one part of the box, such as an edge.
"""

from __future__ import annotations

from functools import partial

from poise.assign import Hungarian
from poise.criteria.set_prediction import SetCriterion, count_on_this_rank
from poise.detectors import QueryDetector
from poise.detectors.collaboration import PointFeatureQueryGenerator
from poise.models.auxiliary import SINGLE_SCALE_STRIDES, single_scale_collaboration
from poise.models.auxiliary_dense import AuxiliarySpec
from poise.models.groups import AuxiliaryOptions, BackboneOptions, TransformerOptions
from poise.models.options import flat_options
from poise.models.parts import query_class_supervision, timm_backbone
from poise.nn.transformer.conditional import ConditionalDecoder, ConditionalDecoderLayer, PointQueries
from poise.nn.transformer.layers import EncoderLayer, PredictionHead, TransformerEncoder, init_xavier
from poise.nn.transformer.tokens import ChannelMapper, Tokenizer
from poise.postprocess import TopKPostProcess


@flat_options
def conditional_detr(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    transformer: TransformerOptions = TransformerOptions(),
    auxiliary: AuxiliaryOptions = AuxiliaryOptions(auxiliary_heads=""),
    class_loss: str = "focal",
    recollect: bool = False,
    dropout: float = 0.1,
    checkpointed_layers: int = 0,
    max_detections: int = 100,
    deterministic: bool = False,
) -> QueryDetector:
    """Build Conditional-DETR on the backbone's last map, stride 32.

    Args:
        class_loss: ``focal`` with class targets of 1; ``quality_focal``, ``varifocal`` or a loss of matched labels such
            as ``matchability(gamma=1.5)`` with IoUs (docs/criteria.md).
        recollect: selective query recollection in training (see ``deformable_detr``).
        checkpointed_layers: number of encoder layers whose activations are recomputed in the backward pass.
        max_detections: kept in each image.
        deterministic: no dropout.
    """
    dropout = 0.0 if deterministic else dropout
    channels, queries = transformer.channels, transformer.queries
    body = timm_backbone(backbone, (5,), train_norm=False)
    neck = ChannelMapper(body.channels, body.strides, channels, groups=0)
    sizes = (channels, transformer.attention_heads, transformer.hidden)
    encoder_stack = [EncoderLayer(*sizes, dropout) for _ in range(transformer.encoder_layers)]
    encoder = TransformerEncoder([*encoder_stack], checkpointed_layers)
    layers = [ConditionalDecoderLayer(*sizes, dropout=dropout, first=i == 0) for i in range(transformer.decoder_layers)]
    init_xavier(encoder, *layers)
    return QueryDetector(
        backbone=body,
        neck=neck,
        tokenizer=Tokenizer(channels, 0),
        encoder=encoder,
        queries=PointQueries(channels, queries),
        decoder=ConditionalDecoder(layers, PredictionHead(channels, num_classes), channels),
        assigner=Hungarian(),
        criterion=SetCriterion(
            *query_class_supervision(class_loss), class_weight=2.0, class_normalizer=count_on_this_rank
        ),
        postprocess=TopKPostProcess(max_detections),
        collaboration=single_scale_collaboration(
            auxiliary,
            AuxiliarySpec(channels, SINGLE_SCALE_STRIDES, num_classes, deterministic),
            partial(PointFeatureQueryGenerator, channels),
            transformer.decoder_layers,
        ),
        one_pass=auxiliary.one_pass,
        recollect=recollect,
    )
