"""Conditional-DETR (Meng et al. 2021): DETR that learns in a sixth of the time.

DETR's queries must find with one vector what an object looks like and where its edges are. Here the place is compared
apart from the content: each query has a reference point, whose sine encoding, scaled by what the query has learned so
far, points every head of cross-attention at a part of the box.
"""

from __future__ import annotations

from functools import partial

from poise.assign import Hungarian
from poise.criteria.set_prediction import SetCriterion, count_on_this_rank
from poise.detectors import QueryDetector
from poise.detectors.collaboration import PointAndFeatures
from poise.models.auxiliary import one_scale_collaboration
from poise.models.parts import Weights
from poise.nn.backbones.timm_features import Backbone
from poise.nn.necks.channel_mapper import ChannelMapper
from poise.nn.transformer.conditional import ConditionalDecoder, ConditionalDecoderLayer, PointQueries
from poise.nn.transformer.layers import Encoder, EncoderLayer, init_xavier
from poise.nn.transformer.queries import Output
from poise.nn.transformer.tokens import Tokenizer
from poise.postprocess import TopKPostProcess


def conditional_detr(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    channels: int = 256,
    heads: int = 8,
    hidden: int = 2048,
    encoder_layers: int = 6,
    decoder_layers: int = 6,
    queries: int = 300,
    auxiliary: str = "",
    dropout: float = 0.1,
    checkpointed_layers: int = 0,
    max_detections: int = 100,
    deterministic: bool = False,
) -> QueryDetector:
    """Conditional-DETR on the backbone's last map (stride 32).

    ``hidden`` is the width of the feed-forward layers, ``max_detections`` the detections kept in an image;
    ``checkpointed_layers`` of
    the encoder save memory by computing their activations again. ``deterministic`` drops nothing. ``auxiliary`` names
    Co-DETR's heads (``"atss"``, ``"faster_rcnn,atss"``), which help in training as in its article.
    """
    dropout = 0.0 if deterministic else dropout
    body = Backbone(backbone, (5,), backbone_weights, frozen_stages, norm_eval, train_norm=False)
    neck = ChannelMapper(body.channels, body.strides, channels, groups=0)
    encoder = Encoder(
        [EncoderLayer(channels, heads, hidden, dropout) for _ in range(encoder_layers)], checkpointed_layers
    )
    layers = [ConditionalDecoderLayer(channels, heads, hidden, dropout, i == 0) for i in range(decoder_layers)]
    init_xavier(encoder, *layers)
    return QueryDetector(
        body,
        neck,
        Tokenizer(channels, 0),
        encoder,
        PointQueries(channels, queries),
        ConditionalDecoder(layers, Output(channels, num_classes), channels),
        Hungarian(),
        SetCriterion(class_weight=2.0, class_normalizer=count_on_this_rank),
        TopKPostProcess(max_detections),
        collaboration=one_scale_collaboration(
            auxiliary, channels, num_classes, decoder_layers, partial(PointAndFeatures, channels), deterministic
        ),
    )
