"""Deformable-DETR (Zhu et al. 2021): the transformer that looks at a few points instead of everywhere.

Encoder tokens of four levels look around themselves, queries around their reference points; Hungarian matching gives
every object one query. Further forms: boxes refined from layer to layer, and queries made from the best boxes that the
encoder proposes (two-stage); with dropout off, mixed selection and look-forward-twice that is what later papers call
Deformable-DETR++, on which H-DETR builds.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from poise.assign import Hungarian
from poise.criteria import SetCriterion
from poise.detectors import QueryDetector
from poise.models.further_queries import FurtherQueries
from poise.models.parts import Weights, check_choice
from poise.nn.backbones.timm_features import Backbone
from poise.nn.necks.channel_mapper import ChannelMapper
from poise.nn.transformer.deformable import (
    DeformableDecoder,
    DeformableDecoderLayer,
    DeformableEncoderLayer,
    Refinement,
)
from poise.nn.transformer.deformable_attention import DeformableAttention
from poise.nn.transformer.layers import Encoder, init_xavier
from poise.nn.transformer.queries import (
    BoxQueries,
    LearnedQueries,
    MixedPositionedQueries,
    Output,
    SelectedQueries,
    best_class,
    first_class,
)
from poise.nn.transformer.tokens import Tokenizer
from poise.postprocess import TopKPostProcess

Selection = Literal["none", "first_class", "best_class"]
SELECTIONS = {"first_class": first_class, "best_class": best_class}


def deformable_detr(
    num_classes: int,
    backbone: str = "resnet50",
    backbone_weights: Weights = None,
    frozen_stages: int | None = None,
    norm_eval: bool | None = None,
    channels: int = 256,
    heads: int = 8,
    points: int = 4,
    hidden: int = 1024,
    encoder_layers: int = 6,
    decoder_layers: int = 6,
    queries: int = 300,
    refine: Refinement = "none",
    select: Selection = "none",
    mixed: bool = False,
    query_groups: int = 1,
    many_queries: int = 0,
    many_repeats: int = 6,
    many_weight: float = 1.0,
    dropout: float = 0.1,
    checkpointed_layers: int = 0,
    max_detections: int = 100,
    deterministic: bool = False,
) -> QueryDetector:
    """Deformable-DETR on four levels.

    Args:
        hidden: width of the feed-forward layers.
        refine: each layer's box is the next one's reference (``once``); and corrects it too (``twice``).
        select: queries from the encoder's best boxes: ranked by their first class, which stands for any (as
            published), or by their best class with classes taught (as in DINO); ``none``: learned queries.
        mixed: of selected queries only the position comes from their box; the content is learned.
        query_groups: groups of so many queries in training, matched each on its own (Group-DETR); 1: one.
        many_queries: further ones in training, by which every object is wanted ``many_repeats`` times, with losses of
            ``many_weight`` (H-DETR); 0: none.
        checkpointed_layers: encoder layers that save memory by computing their activations again in the backward pass.
        max_detections: detections kept in each image.
        deterministic: no dropout.
    """
    dropout = 0.0 if deterministic else dropout
    body = Backbone(backbone, (3, 4, 5), backbone_weights, frozen_stages, norm_eval, train_norm=False)
    neck = ChannelMapper(body.channels, body.strides, channels, extra=1)
    levels = len(neck.strides)
    check_choice("select", select, ("none", *SELECTIONS))
    encoder = [DeformableEncoderLayer(channels, heads, levels, points, hidden, dropout) for _ in range(encoder_layers)]
    layers = [DeformableDecoderLayer(channels, heads, levels, points, hidden, dropout) for _ in range(decoder_layers)]
    outputs = [Output(channels, num_classes) for _ in range(1 if refine == "none" else decoder_layers)]
    further = FurtherQueries(queries, query_groups, many_queries, many_repeats, many_weight)
    asked: nn.Module
    if select == "none":
        asked = LearnedQueries(channels, further.learned)
        outputs[0].reset_parameters(side=-2.0)  # small boxes to begin with
    else:

        def selection(count: int) -> SelectedQueries:
            make = MixedPositionedQueries(channels, count) if mixed else BoxQueries(channels)
            return SelectedQueries(channels, num_classes, count, make, SELECTIONS[select])

        asked = further.selected(selection)
    tokenizer, memory = Tokenizer(channels, levels, offset=-0.5), Encoder([*encoder], checkpointed_layers)
    init_deformable(memory, *layers)
    return QueryDetector(
        body,
        neck,
        tokenizer,
        memory,
        asked,
        DeformableDecoder(layers, outputs, refine),
        Hungarian(),
        SetCriterion(class_weight=2.0),
        TopKPostProcess(max_detections),
        **further.of_detector(Hungarian()),
    )


def init_deformable(*parts: nn.Module) -> None:
    """The originals' start: Xavier everywhere, and every head of deformable attention looking its own way."""
    init_xavier(*parts)
    for module in (module for part in parts for module in part.modules()):
        if isinstance(module, DeformableAttention):
            module.reset_parameters()
