"""Deformable-DETR (Zhu et al. 2021): DETR with multi-scale deformable attention.

Tokens of four levels attend to a few points around themselves, queries to a few points around their references;
Hungarian matching supervises one query for each object. Options add iterative box refinement and queries selected from
the encoder's proposals (two-stage). Without dropout, and with mixed query selection and look forward twice, it is what
later papers call Deformable-DETR++, on which H-DETR and Co-Deformable-DETR build.
"""

from __future__ import annotations

from typing import Literal

from poise.assign import Hungarian
from poise.criteria import SetCriterion
from poise.detectors import QueryDetector
from poise.models.parts import Weights, check_choice
from poise.models.training_queries import TrainingQueries
from poise.nn.backbones.timm_features import Backbone
from poise.nn.necks.channel_mapper import ChannelMapper
from poise.nn.transformer.deformable import (
    DeformableAttention,
    DeformableDecoder,
    DeformableDecoderLayer,
    DeformableEncoderLayer,
    Refinement,
)
from poise.nn.transformer.layers import PredictionHead, TransformerEncoder, init_xavier
from poise.nn.transformer.queries import (
    BoxQueries,
    LearnedQueries,
    MixedPositionedQueries,
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
    attention_heads: int = 8,
    points: int = 4,
    hidden: int = 1024,
    encoder_layers: int = 6,
    decoder_layers: int = 6,
    queries: int = 300,
    refine: Refinement = "none",
    select: Selection = "none",
    mixed: bool = False,
    query_groups: int = 1,
    one_to_many_queries: int = 0,
    one_to_many_repeats: int = 6,
    one_to_many_weight: float = 1.0,
    dropout: float = 0.1,
    checkpointed_layers: int = 0,
    max_detections: int = 100,
    deterministic: bool = False,
) -> QueryDetector:
    """Build Deformable-DETR on four levels, strides 8 to 64.

    Args:
        points: sampled by each attention head on each level.
        hidden: width of the feed-forward networks.
        refine: ``once``: the box of a decoder layer is the reference of the next (iterative box refinement); ``twice``:
            in addition, gradients of the next layer's box reach it (look forward twice); ``none``: fixed references.
        select: make queries from the encoder's best proposals: ``first_class`` scores them by their first class, which
            stands for any object (as published), ``best_class`` by their highest class, supervised with classes (as in
            DINO); ``none``: learned queries.
        mixed: take only references and positions of selected queries from their boxes and learn the content.
        query_groups: groups of ``queries`` queries in training, each matched separately (Group-DETR).
        one_to_many_queries: additional queries in training, matched with every object ``one_to_many_repeats`` times,
            with losses weighted by ``one_to_many_weight`` (H-DETR); 0: none.
        checkpointed_layers: number of encoder layers whose activations are recomputed in the backward pass.
        max_detections: kept in each image.
        deterministic: no dropout.
    """
    dropout = 0.0 if deterministic else dropout
    body = Backbone(backbone, (3, 4, 5), backbone_weights, frozen_stages, norm_eval, train_norm=False)
    neck = ChannelMapper(body.channels, body.strides, channels, extra=1)
    check_choice("select", select, ("none", *SELECTIONS))
    levels = len(neck.strides)
    sizes = (channels, attention_heads, levels, points, hidden, dropout)
    encoder, layers = deformable_layers(sizes, encoder_layers, decoder_layers, checkpointed_layers)
    heads = [PredictionHead(channels, num_classes) for _ in range(1 if refine == "none" else decoder_layers)]
    training = TrainingQueries(queries, query_groups, one_to_many_queries, one_to_many_repeats, one_to_many_weight)

    def selection(count: int) -> SelectedQueries:
        generator = MixedPositionedQueries(channels, count) if mixed else BoxQueries(channels)
        return SelectedQueries(channels, num_classes, count, generator, SELECTIONS[select])

    if select == "none":
        heads[0].reset_parameters(log_size=-2.0)  # boxes start small
    return QueryDetector(
        backbone=body,
        neck=neck,
        tokenizer=Tokenizer(channels, levels, offset=-0.5),
        encoder=encoder,
        queries=LearnedQueries(channels, training.total) if select == "none" else training.selected(selection),
        decoder=DeformableDecoder(layers, heads, refine),
        assigner=Hungarian(),
        criterion=SetCriterion(class_weight=2.0),
        postprocess=TopKPostProcess(max_detections),
        **training.detector_options(Hungarian()),
    )


def deformable_layers(
    sizes: tuple[int, int, int, int, int, float], encoder_layers: int, decoder_layers: int, checkpointed: int = 0
) -> tuple[TransformerEncoder, list[DeformableDecoderLayer]]:
    """Build the encoder and the decoder layers with the original's initialization.

    Args:
        sizes: channels, attention heads, levels, points, hidden width and dropout of each layer.
        checkpointed: encoder layers whose activations are recomputed in the backward pass.
    """
    encoder = TransformerEncoder([DeformableEncoderLayer(*sizes) for _ in range(encoder_layers)], checkpointed)
    layers = [DeformableDecoderLayer(*sizes) for _ in range(decoder_layers)]
    init_xavier(encoder, *layers)
    for module in (module for part in (encoder, *layers) for module in part.modules()):
        if isinstance(module, DeformableAttention):
            module.reset_parameters()
    return encoder, layers
