"""Checkpoints of Co-DETR's authors (Sense-X/Co-DETR). Weights of the auxiliary heads load where the model has them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from poise.published.detr import NECK, deformable_attention, layers, outputs, proposed
from poise.published.shared import BACKBONE, Rule
from poise.published.swin import microsoft

TRANSFORMER = r"query_head\.transformer\."
AUXILIARY: list[Rule] = [
    (r"query_head\.downsample\.(.+)", r"collaboration.adapter.\1"),
    (r"rpn_head\.rpn_conv\.(.+)", r"collaboration.auxiliary_heads.0.branch.proposal.head.conv.\1"),
    (r"rpn_head\.rpn_cls\.(.+)", r"collaboration.auxiliary_heads.0.branch.proposal.head.objectness.\1"),
    (r"rpn_head\.rpn_reg\.(.+)", r"collaboration.auxiliary_heads.0.branch.proposal.head.offsets.\1"),
    (
        r"roi_head\.0\.bbox_head\.shared_fcs\.(\d)\.(.+)",
        r"collaboration.auxiliary_heads.0.branch.region.head.layers.\1.\2",
    ),
    (r"roi_head\.0\.bbox_head\.fc_cls\.(.+)", r"collaboration.auxiliary_heads.0.branch.region.head.classes.\1"),
    (r"roi_head\.0\.bbox_head\.fc_reg\.(.+)", r"collaboration.auxiliary_heads.0.branch.region.head.offsets.\1"),
    (
        r"bbox_head\.0\.cls_convs\.(\d)\.gn\.(.+)",
        r"collaboration.auxiliary_heads.1.branch.head.classification.\1.norm.\2",
    ),
    (r"bbox_head\.0\.reg_convs\.(\d)\.gn\.(.+)", r"collaboration.auxiliary_heads.1.branch.head.regression.\1.norm.\2"),
    (r"bbox_head\.0\.cls_convs\.(\d)\.(.+)", r"collaboration.auxiliary_heads.1.branch.head.classification.\1.\2"),
    (r"bbox_head\.0\.reg_convs\.(\d)\.(.+)", r"collaboration.auxiliary_heads.1.branch.head.regression.\1.\2"),
    (r"bbox_head\.0\.atss_cls\.(.+)", r"collaboration.auxiliary_heads.1.branch.head.classes.\1"),
    (r"bbox_head\.0\.atss_reg\.(.+)", r"collaboration.auxiliary_heads.1.branch.head.box_distances.\1"),
    (r"bbox_head\.0\.atss_centerness\.(.+)", r"collaboration.auxiliary_heads.1.branch.head.centerness.\1"),
    (r"bbox_head\.0\.scales\.(\d)\.scale", r"collaboration.auxiliary_heads.1.branch.head.scales.\1.scale"),
    (TRANSFORMER + r"aux_pos_trans\.(\d)\.(.+)", r"collaboration.auxiliary_heads.\1.query_generator.encode.project.\2"),
    (
        TRANSFORMER + r"aux_pos_trans_norm\.(\d)\.(.+)",
        r"collaboration.auxiliary_heads.\1.query_generator.encode.norm.\2",
    ),
    (TRANSFORMER + r"pos_feats_trans\.(\d)\.(.+)", r"collaboration.auxiliary_heads.\1.query_generator.project.\2"),
    (TRANSFORMER + r"pos_feats_norm\.(\d)\.(.+)", r"collaboration.auxiliary_heads.\1.query_generator.norm.\2"),
    (
        TRANSFORMER + r"head_pos_embed\.weight \((\d)\)",
        r"collaboration.auxiliary_heads.\1.query_generator.head_embedding",
    ),
]
SHARED: list[Rule] = [
    *BACKBONE,
    *NECK,
    (TRANSFORMER + r"level_embeds", r"tokenizer.level_embedding"),
    *deformable_attention(TRANSFORMER + r"encoder\.layers\.(\d)\.attentions\.0", r"encoder.layers.\1.attention"),
    *deformable_attention(TRANSFORMER + r"decoder\.layers\.(\d)\.attentions\.1", r"decoder.layers.\1.cross_attention"),
    (TRANSFORMER + r"decoder\.layers\.(\d)\.attentions\.0\.attn\.(.+)", r"decoder.layers.\1.self_attention.\2"),
    *layers(TRANSFORMER, r"ffns\.0"),
    (TRANSFORMER + r"enc_output\.(.+)", r"queries.transform.\1"),
    (TRANSFORMER + r"enc_output_norm\.(.+)", r"queries.norm.\1"),
    *AUXILIARY,
]
CO_DEFORMABLE_DETR: list[Rule] = [
    *SHARED,
    (TRANSFORMER + r"pos_trans\.(.+)", r"queries.query_generator.encode.project.\1"),
    (TRANSFORMER + r"pos_trans_norm\.(.+)", r"queries.query_generator.encode.norm.\1"),
    (r"query_head\.query_embedding\.weight", r"queries.query_generator.content.weight"),
    *proposed("query_head", 6),
    *outputs("query_head", r"decoder.prediction_heads.\1"),
]
CO_DINO: list[Rule] = [
    *SHARED,
    (TRANSFORMER + r"decoder\.ref_point_head\.0\.(.+)", r"decoder.position.project.layers.0.\1"),
    (TRANSFORMER + r"decoder\.ref_point_head\.2\.(.+)", r"decoder.position.project.layers.1.\1"),
    (TRANSFORMER + r"decoder\.norm\.(.+)", r"decoder.norm.\1"),
    (TRANSFORMER + r"query_embed\.weight", r"queries.query_generator.content.weight"),
    (r"query_head\.label_embedding\.weight", r"denoising.embedding.weight"),
    *proposed("query_head", 6),
    *outputs("query_head", r"decoder.prediction_heads.\1"),
]
REGION = "collaboration.auxiliary_heads.0.branch.region.head"
EVA: list[Rule] = [
    (r"backbone\..*rope.*\.freqs_(cos|sin)", None),
    (r"backbone\.(pos_embed|patch_embed\..+|blocks\.\d+\.norm\d\..+)", r"backbone.body.\1"),
    (r"backbone\.blocks\.(\d+)\.attn\.([qv])_bias", r"backbone.body.blocks.\1.attn.\2_proj.bias"),
    (r"backbone\.blocks\.(\d+)\.attn\.((?:[qkv]_)?proj\..+)", r"backbone.body.blocks.\1.attn.\2"),
    (r"backbone\.blocks\.(\d+)\.mlp\.w1\.(.+)", r"backbone.body.blocks.\1.mlp.fc1_g.\2"),
    (r"backbone\.blocks\.(\d+)\.mlp\.w2\.(.+)", r"backbone.body.blocks.\1.mlp.fc1_x.\2"),
    (r"backbone\.blocks\.(\d+)\.mlp\.w3\.(.+)", r"backbone.body.blocks.\1.mlp.fc2.\2"),
    (r"backbone\.blocks\.(\d+)\.mlp\.ffn_ln\.(.+)", r"backbone.body.blocks.\1.mlp.norm.\2"),
    (r"backbone\.out_norm\.(.+)", r"backbone.norm.\1"),
    (r"neck\.(p\d\..+)", r"neck.\1"),
    (r"roi_head\.0\.bbox_head\.shared_convs\.(\d)\.conv\.(.+)", REGION + r".convs.\1.conv.\2"),
    (r"roi_head\.0\.bbox_head\.shared_convs\.(\d)\.gn\.(.+)", REGION + r".convs.\1.norm.\2"),
]
CO_DETRS: dict[str, list[Rule]] = {
    "co_deformable_detr": CO_DEFORMABLE_DETR,
    "co_deformable_detr_swin": [*microsoft(1), *CO_DEFORMABLE_DETR],
    "co_dino": CO_DINO,
    "co_dino_5scale_swin": [*microsoft(0), *CO_DINO],
    "co_dino_5scale_vit": [*EVA, *CO_DINO],
}


def split_embedding(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split the embeddings of the auxiliary heads, which are rows of one tensor, into separate entries."""
    split = dict(state)
    key = "query_head.transformer.head_pos_embed.weight"
    for number, row in enumerate(split.pop(key, ())):
        split[f"{key} ({number})"] = row
    return split
