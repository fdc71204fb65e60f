"""DINO (Zhang et al. 2023): Deformable-DETR with contrastive denoising, mixed query selection and look forward twice.

Contrastive denoising (section 3.3): besides the matched queries the decoder gets noisy objects, to be restored or
rejected. Mixed query selection (section 3.4): references come from the encoder's proposals, contents are learned. Look
forward twice (section 3.5): the loss of a layer's box also trains the layer before.
"""

from __future__ import annotations

from torch import nn

from poise.assign import Hungarian
from poise.criteria import SetCriterion
from poise.detectors import QueryDetector
from poise.models.deformable_detr import deformable_layers
from poise.models.groups import BackboneOptions, DeformableOptions, DenoisingOptions, TrainingQueryOptions
from poise.models.options import flat_options
from poise.models.parts import query_backbone, query_class_supervision
from poise.models.training_queries import TrainingQueries
from poise.nn.transformer.deformable import BoxPosition, DeformableDecoder
from poise.nn.transformer.denoising import ContrastiveDenoising
from poise.nn.transformer.layers import PredictionHead
from poise.nn.transformer.queries import MixedQueries, SelectedQueries
from poise.nn.transformer.tokens import ChannelMapper, Tokenizer
from poise.postprocess import TopKPostProcess


@flat_options
def dino(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    drop_path: float = 0.0,
    levels: int = 4,
    transformer: DeformableOptions = DeformableOptions(queries=900),
    denoising: DenoisingOptions = DenoisingOptions(),
    class_loss: str = "focal",
    class_weight: float = 1.0,
    distinct_queries: float = 0.0,
    training_queries: TrainingQueryOptions = TrainingQueryOptions(),
    cross_first: bool = False,
    temperature: float = 20.0,
    offset: float = 0.0,
    dropout: float = 0.0,
    max_detections: int = 300,
    deterministic: bool = False,
) -> QueryDetector:
    """Build DINO; denoising queries attend to the first group of queries alone.

    Args:
        drop_path: stochastic depth of a Swin backbone.
        levels: 4 (strides 8 to 64) or 5 (strides 4 to 64).
        class_loss: ``focal`` with class targets of 1; ``quality_focal``, ``varifocal`` or a loss of matched labels such
            as ``matchability(gamma=1.5)`` with IoUs (docs/criteria.md).
        class_weight: of the class loss; the paper's improved recipe uses 2.
        distinct_queries: IoU with a better proposal above which a proposal is selected last (DDQ: 0.8); 0: by score
            alone.
        cross_first: in decoder layers, cross-attention comes before self-attention (MS-DETR).
        temperature, offset: of the sine encodings; the improved recipe uses 10000 and -0.5.
        max_detections: kept in each image.
        deterministic: no noise and no dropout.
    """
    dropout = 0.0 if deterministic else dropout
    channels = transformer.channels
    body = query_backbone(backbone, tuple(range(7 - levels, 6)), drop_path=0.0 if deterministic else drop_path)
    neck = ChannelMapper(body.channels, body.strides, channels, extra=1)
    training = TrainingQueries(transformer.queries, training_queries)
    encoder, layers = deformable_layers(transformer, levels, dropout, cross_first or training.cross_first)
    heads = [PredictionHead(channels, num_classes) for _ in layers]
    branches = training.branches(transformer, heads, dropout)

    def selection(count: int) -> SelectedQueries:
        generator = MixedQueries(channels, count)
        return SelectedQueries(channels, num_classes, count, generator, distinct=distinct_queries)

    position, norm = BoxPosition(channels), nn.LayerNorm(channels)
    return QueryDetector(
        backbone=body,
        neck=neck,
        tokenizer=Tokenizer(channels, levels, temperature, offset),
        encoder=encoder,
        queries=training.selected(selection),
        decoder=DeformableDecoder(layers, heads, "twice", position=position, norm=norm, eps=1e-3, one_to_many=branches),
        assigner=Hungarian(),
        criterion=SetCriterion(*query_class_supervision(class_loss), class_weight),
        postprocess=TopKPostProcess(max_detections),
        denoising=contrastive_denoising(denoising, num_classes, channels, deterministic),
        **training.detector_options(Hungarian()),
    )


def contrastive_denoising(
    options: DenoisingOptions, num_classes: int, channels: int, deterministic: bool
) -> ContrastiveDenoising | None:
    """Return the denoising queries, without noise if ``deterministic``; None where there are to be none."""
    label, box = (0.0, 0.0) if deterministic else (options.label_noise, options.box_noise)
    if not options.denoising:
        return None
    return ContrastiveDenoising(num_classes, channels, options.denoising, label_noise=label, box_noise=box)
