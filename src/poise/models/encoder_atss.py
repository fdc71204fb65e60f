"""Deformable-DETR's encoder with an ATSS head in place of the decoder, a baseline of Co-DETR's article.

Zong et al. 2023 compare the features of the encoder under one-to-many assignment with those under one-to-one matching
(figures 2 and 3). The head is Co-DETR's auxiliary ATSS head on the same pyramid, here the only one that is trained.
"""

from __future__ import annotations

from dataclasses import replace

from poise.detectors import DenseBranch, EncoderDetector
from poise.detectors.collaboration import CoarserLevelAdapter
from poise.models.auxiliary_dense import AuxiliarySpec, atss_branch, with_coarser
from poise.models.deformable_detr import deformable_layers
from poise.models.groups import BackboneOptions, DeformableOptions, NMSOptions
from poise.models.options import flat_options
from poise.models.parts import timm_backbone
from poise.nn.transformer.tokens import ChannelMapper, Tokenizer


@flat_options
def encoder_atss(
    num_classes: int,
    *,
    backbone: BackboneOptions = BackboneOptions(),
    transformer: DeformableOptions = DeformableOptions(hidden=1024, decoder_layers=0, queries=0),
    dropout: float = 0.1,
    nms: NMSOptions = NMSOptions(),
    deterministic: bool = False,
) -> EncoderDetector:
    """Build the encoder of Deformable-DETR with an ATSS head; there are no decoder and no queries.

    Args:
        dropout: of the encoder.
        deterministic: no dropout.

    Raises:
        ValueError: decoder layers or queries are given.
    """
    if transformer.decoder_layers or transformer.queries:
        given = f"decoder_layers={transformer.decoder_layers}, queries={transformer.queries}"
        raise ValueError(f"{given}: an encoder with an ATSS head has neither; leave them out")
    body = timm_backbone(backbone, train_norm=False)
    neck = ChannelMapper(body.channels, body.strides, transformer.channels, extra=1)
    encoder, _ = deformable_layers(transformer, len(neck.strides), 0.0 if deterministic else dropout)
    branch = atss_branch(AuxiliarySpec(transformer.channels, with_coarser(neck.strides), num_classes, False)).branch
    assert isinstance(branch, DenseBranch)
    branch.postprocess = replace(branch.postprocess, **vars(nms))
    return EncoderDetector(
        backbone=body,
        neck=neck,
        tokenizer=Tokenizer(transformer.channels, len(neck.strides), offset=-0.5),
        encoder=encoder,
        adapter=CoarserLevelAdapter(transformer.channels),
        branch=branch,
    )
