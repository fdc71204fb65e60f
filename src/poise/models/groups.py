"""Groups of options that the builders of several models have in common.

A builder takes a group as one argument. On the command line, in recipes and in ``create_model`` each option of a group
is an option of its own, under the name of its field (``flat_options`` in ``poise.models.options``). The texts below are
their help.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Weights = str | Path | None


@dataclass(frozen=True, kw_only=True)
class OptionGroup:
    """Options that belong together; a builder takes a group as the default value of one argument."""


@dataclass(frozen=True, kw_only=True)
class BackboneOptions(OptionGroup):
    """Options of the backbone.

    Args:
        backbone: timm's name of the network, or the name of a backbone that a plug-in registered.
        backbone_weights: None (random), ``"imagenet"`` or a file.
        frozen_stages: number of first stages that are not trained, the stem among them (0: the stem alone, -1: none);
            None: 1 if the backbone starts from weights, otherwise -1.
        norm_eval: keep the running statistics of batch norms fixed; None: if the backbone starts from weights.
    """

    backbone: str = "resnet50"
    backbone_weights: Weights = None
    frozen_stages: int | None = None
    norm_eval: bool | None = None


@dataclass(frozen=True, kw_only=True)
class NMSOptions(OptionGroup):
    """Options of the post-processing with NMS.

    Args:
        score_threshold: detections with a score up to this are dropped.
        nms_threshold: IoU above which NMS drops the box with the lower score; None: no NMS (one-stage detectors).
        max_detections: kept in each image.
        nms_similarity: what ``nms_threshold`` is compared with instead of the IoU, for tiny objects: ``nwd``, ``simd``
            or ``gcd``, or with numbers such as ``nwd(scale=16.0)``.
    """

    score_threshold: float = 0.05
    nms_threshold: float | None = 0.6
    max_detections: int = 100
    nms_similarity: str = "iou"


@dataclass(frozen=True, kw_only=True)
class BoxLossOptions(OptionGroup):
    """Options of the box loss of two-stage detectors and Libra RetinaNet, a loss of encoded boxes.

    Args:
        box_loss: ``l1``, ``smooth_l1`` or ``balanced_l1`` (Libra R-CNN).
        l1_alpha: alpha of balanced L1 (0.5); smaller values increase the gradient of accurate boxes.
        l1_gamma: gamma of balanced L1 (1.5), the gradient of outliers.
        l1_beta: error from which smooth L1 and balanced L1 are linear (1; Libra RetinaNet's balanced L1: 0.11).
    """

    box_loss: str = "l1"
    l1_alpha: float | None = None
    l1_gamma: float | None = None
    l1_beta: float | None = None


@dataclass(frozen=True, kw_only=True)
class BalancedPyramidOptions(OptionGroup):
    """Options of Libra R-CNN's balanced feature pyramid (BFP).

    Args:
        refine: refinement of the mean of the levels: ``non_local``, ``conv``, or ``none`` (levels are averaged and
            added back alone); ``off`` leaves the pyramid as it is.
        refine_level: level, from 0 for the finest, whose size the mean has; by default that of stride 16.
    """

    refine: str = "non_local"
    refine_level: int | None = None


@dataclass(frozen=True, kw_only=True)
class TransformerOptions(OptionGroup):
    """Options of the encoder and the decoder of a DETR.

    Args:
        channels: of the tokens and the queries.
        attention_heads: of each attention layer.
        hidden: width of the feed-forward networks.
        encoder_layers, decoder_layers: number of layers.
        queries: of an image at inference.
    """

    channels: int = 256
    attention_heads: int = 8
    hidden: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    queries: int = 300


@dataclass(frozen=True, kw_only=True)
class DeformableOptions(TransformerOptions):
    """Options of an encoder and a decoder with multi-scale deformable attention.

    Args:
        points: sampled by each attention head on each level.
        checkpointed_layers: number of encoder layers whose activations are recomputed in the backward pass.
    """

    points: int = 4
    checkpointed_layers: int = 0


@dataclass(frozen=True, kw_only=True)
class TrainingQueryOptions(OptionGroup):
    """Options of the queries that training alone has (Group-DETR, H-DETR).

    Args:
        query_groups: groups of ``queries`` queries in training, each matched separately (Group-DETR).
        one_to_many_queries: additional queries in training, matched with every object ``one_to_many_repeats`` times,
            with losses weighted by ``one_to_many_weight`` (H-DETR); 0: none.
        one_to_many: one-to-many supervision of the queries of inference (MS-DETR): ``top_scores``,
            ``top_scores(topk=4)`` or ``mixed_supervision(...)`` with further settings (docs/criteria.md); empty: none.
    """

    query_groups: int = 1
    one_to_many_queries: int = 0
    one_to_many_repeats: int = 6
    one_to_many_weight: float = 1.0
    one_to_many: str = ""


@dataclass(frozen=True, kw_only=True)
class DenoisingOptions(OptionGroup):
    """Options of contrastive denoising.

    Args:
        denoising: maximum number of pairs of denoising queries in an image; 0: none.
        label_noise, box_noise: see ``ContrastiveDenoising``.
    """

    denoising: int = 100
    label_noise: float = 0.5
    box_noise: float = 1.0


@dataclass(frozen=True, kw_only=True)
class AuxiliaryOptions(OptionGroup):
    """Options of Co-DETR's auxiliary heads.

    Args:
        auxiliary_heads: names of ``models.auxiliary.AUXILIARY`` separated by commas; an empty string builds the
            detector without.
        auxiliary_head_weight: of the heads' losses relative to those of one decoder layer (lambda_2); 0: the heads
            assign and make queries, but are not trained.
        auxiliary_query_weight: of the losses of customized positive queries (lambda_1).
        max_auxiliary_queries: customized positive queries that a head makes in an image; 0: none.
        pad_with_negatives: add random negatives in images with fewer positives than others (published); otherwise
            positives alone (article).
        one_pass: decode all queries in one pass; otherwise those of each head in a pass of their own (equal results,
            less memory).
        regions, region_hidden: regions of an image that train Faster R-CNN's second stage, and the width of its layers.
    """

    auxiliary_heads: str = "faster_rcnn,atss"
    auxiliary_head_weight: float = 2.0
    auxiliary_query_weight: float = 1.0
    max_auxiliary_queries: int = 300
    pad_with_negatives: bool = True
    one_pass: bool = True
    regions: int = 512
    region_hidden: int = 1024
