"""Deformable-DETR (Zhu et al. 2021): DETR with multi-scale deformable attention.

Tokens of four levels attend to a few points around themselves, queries to a few points around their references;
Hungarian matching supervises one query for each object. Options add iterative box refinement and queries selected from
the encoder's proposals (two-stage). Without dropout, and with mixed query selection and look forward twice, it is what
later papers call Deformable-DETR++, on which H-DETR and Co-Deformable-DETR build.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from poise.assign import Hungarian
from poise.criteria import SetCriterion
from poise.detectors import QueryDetector
from poise.detectors.collaboration import BoxFeatureQueryGenerator, PointFeatureQueryGenerator
from poise.models.auxiliary import collaboration
from poise.models.auxiliary_dense import AuxiliarySpec, with_coarser
from poise.models.groups import AuxiliaryOptions, BackboneOptions, DeformableOptions, TrainingQueryOptions
from poise.models.options import flat_options
from poise.models.parts import check_choice, query_backbone, query_class_supervision, query_neck
from poise.models.training_queries import TrainingQueries
from poise.nn.transformer.deformable import DeformableDecoder, Refinement
from poise.nn.transformer.layers import (
    DeformableAttention,
    DeformableDecoderLayer,
    DeformableEncoderLayer,
    PredictionHead,
    TransformerEncoder,
    init_xavier,
)
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


@flat_options
def deformable_detr(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    transformer: DeformableOptions = DeformableOptions(hidden=1024),
    refine: Refinement = "none",
    select: Selection = "none",
    mixed: bool = False,
    distinct_queries: float = 0.0,
    training_queries: TrainingQueryOptions = TrainingQueryOptions(),
    auxiliary: AuxiliaryOptions = AuxiliaryOptions(auxiliary_heads=""),
    class_loss: str = "focal",
    class_weight: float = 2.0,
    cross_first: bool = False,
    recollect: bool = False,
    dropout: float = 0.1,
    max_detections: int = 100,
    deterministic: bool = False,
) -> QueryDetector:
    """Build Deformable-DETR on four levels, strides 8 to 64.

    Args:
        refine: ``once``: the box of a decoder layer is the reference of the next (iterative box refinement); ``twice``:
            in addition, gradients of the next layer's box reach it (look forward twice); ``none``: fixed references.
        select: make queries from the encoder's best proposals: ``first_class`` scores them by their first class, which
            stands for any object (as published), ``best_class`` by their highest class, supervised with classes (as in
            DINO); ``none``: learned queries.
        mixed: take only references and positions of selected queries from their boxes and learn the content.
        distinct_queries: IoU with a better proposal above which a proposal is selected last (DDQ: 0.8); 0: by score
            alone.
        class_loss: ``focal`` with class targets of 1; ``quality_focal``, ``varifocal`` or a loss of matched labels such
            as ``matchability(gamma=1.5)`` with IoUs (docs/criteria.md).
        class_weight: of the class loss; MS-DETR has 1.
        cross_first: in decoder layers, cross-attention comes before self-attention (MS-DETR).
        recollect: in training each decoder layer also processes the queries that the layer before it received, as well
            as their own successors, with losses for all of them (SQR: Chen et al. 2023).
        max_detections: kept in each image.
        deterministic: no dropout and no sampling.
    """
    dropout = 0.0 if deterministic else dropout
    channels = transformer.channels
    body = query_backbone(backbone, (3, 4, 5))
    neck = query_neck(body, channels)
    _check_selection(select, distinct_queries)
    levels = len(neck.strides)
    training = TrainingQueries(transformer.queries, training_queries)
    cross_first = cross_first or training.cross_first
    encoder, layers = deformable_layers(transformer, levels, dropout, cross_first)
    heads = [PredictionHead(channels, num_classes) for _ in (layers[:1] if refine == "none" else layers)]
    if recollect and training.mixed_supervision is not None:
        raise ValueError(
            f"recollect=True and one_to_many='{training_queries.one_to_many}' exclude each other: the sets of queries "
            "that recollection adds are not those of inference; leave one of them out"
        )

    def selection(count: int) -> SelectedQueries:
        generator = MixedPositionedQueries(channels, count) if mixed else BoxQueries(channels)
        score = SELECTIONS[select]
        return SelectedQueries(channels, num_classes, count, generator, score=score, distinct=distinct_queries)

    if select == "none":
        heads[0].reset_parameters(log_size=-2.0)  # boxes start small
    points = PointFeatureQueryGenerator if select == "none" else BoxFeatureQueryGenerator
    spec = AuxiliarySpec(channels, with_coarser(neck.strides), num_classes, deterministic)
    return QueryDetector(
        backbone=body,
        neck=neck,
        tokenizer=Tokenizer(channels, levels, offset=-0.5),
        encoder=encoder,
        queries=LearnedQueries(channels, training.total) if select == "none" else training.selected(selection),
        decoder=DeformableDecoder(layers, heads, refine, one_to_many=training.branches(transformer, heads, dropout)),
        assigner=Hungarian(),
        criterion=SetCriterion(*query_class_supervision(class_loss), class_weight),
        postprocess=TopKPostProcess(max_detections),
        collaboration=collaboration(auxiliary, spec, partial(points, channels), transformer.decoder_layers),
        one_pass=auxiliary.one_pass,
        recollect=recollect,
        **training.detector_options(Hungarian()),
    )


def _check_selection(select: str, distinct_queries: float) -> None:
    """Check the options of the selection of queries against each other."""
    check_choice("select", select, ("none", *SELECTIONS))
    if distinct_queries and select == "none":
        raise ValueError(
            f"distinct_queries={distinct_queries} has no effect with select='none', whose queries are learned: set "
            "select='best_class', take deformable_detr_plus_r50, or leave it out"
        )


def deformable_layers(
    options: DeformableOptions, levels: int, dropout: float = 0.0, cross_first: bool = False
) -> tuple[TransformerEncoder, list[DeformableDecoderLayer]]:
    """Build the encoder and the decoder layers with the original's initialization."""
    sizes = (options.channels, options.attention_heads, levels, options.points)
    hidden = options.hidden
    encoder_layers = [
        DeformableEncoderLayer(*sizes, hidden=hidden, dropout=dropout) for _ in range(options.encoder_layers)
    ]
    encoder = TransformerEncoder([*encoder_layers], options.checkpointed_layers)
    layers = [
        DeformableDecoderLayer(*sizes, hidden=hidden, dropout=dropout, cross_first=cross_first)
        for _ in range(options.decoder_layers)
    ]
    init_xavier(encoder, *layers)
    for module in (module for part in (encoder, *layers) for module in part.modules()):
        if isinstance(module, DeformableAttention):
            module.reset_parameters()
    return encoder, layers
