"""DAB-DETR (Liu et al. 2022): queries that are boxes.

Each query is a learned anchor box; its sine encoding is where the query looks, weighed by the size that it expects, and
every layer moves the box. So what was a vector without meaning can be read, drawn and refined.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from poise.assign import Hungarian
from poise.criteria.set_prediction import SetCriterion, count_on_this_rank
from poise.detectors import QueryDetector
from poise.detectors.collaboration import BoxContent
from poise.models.auxiliary import one_scale_collaboration
from poise.models.parts import Weights
from poise.nn.backbones.timm_features import Backbone
from poise.nn.necks.channel_mapper import ChannelMapper
from poise.nn.transformer.conditional import AnchorDecoder, AnchorQueries, ConditionalDecoderLayer, ScaledEncoder
from poise.nn.transformer.layers import EncoderLayer, init_xavier
from poise.nn.transformer.queries import Output
from poise.nn.transformer.tokens import Tokenizer
from poise.postprocess import TopKPostProcess


def dab_detr(
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
    dropout: float = 0.0,
    max_detections: int = 300,
    deterministic: bool = False,
) -> QueryDetector:
    """DAB-DETR on the backbone's last map (stride 32).

    ``hidden`` is the width of the feed-forward layers, ``max_detections`` the detections kept in an image;
    ``deterministic`` drops
    nothing. ``auxiliary`` names Co-DETR's heads (``"atss"``, ``"faster_rcnn,atss"``), which help in training as in its
    article.
    """
    dropout = 0.0 if deterministic else dropout
    body = Backbone(backbone, (5,), backbone_weights, frozen_stages, norm_eval, train_norm=False)
    neck = ChannelMapper(body.channels, body.strides, channels, groups=0)
    encoder = [EncoderLayer(channels, heads, hidden, dropout, nn.PReLU) for _ in range(encoder_layers)]
    layers = [
        ConditionalDecoderLayer(channels, heads, hidden, dropout, i == 0, nn.PReLU) for i in range(decoder_layers)
    ]
    init_xavier(*encoder, *layers)
    return QueryDetector(
        body,
        neck,
        Tokenizer(channels, 0, temperature=20.0),
        ScaledEncoder(encoder, channels),
        AnchorQueries(channels, queries),
        AnchorDecoder(layers, Output(channels, num_classes), channels),
        Hungarian(eps=1e-8),
        SetCriterion(class_weight=1.0, class_normalizer=count_on_this_rank),
        TopKPostProcess(max_detections),
        collaboration=one_scale_collaboration(
            auxiliary, channels, num_classes, decoder_layers, partial(BoxContent, channels), deterministic
        ),
    )
