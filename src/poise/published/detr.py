"""Checkpoints of the DETR family, as MMDetection 3 publishes them."""

from __future__ import annotations

from poise.published.shared import BACKBONE, Rule
from poise.published.swin import mmdetection

NECK: list[Rule] = [
    (r"neck\.convs\.(\d)\.conv\.(.+)", r"neck.convs.\1.conv.\2"),
    (r"neck\.convs\.(\d)\.gn\.(.+)", r"neck.convs.\1.norm.\2"),
    (r"neck\.extra_convs\.(\d)\.conv\.(.+)", r"neck.extra.\1.conv.\2"),
    (r"neck\.extra_convs\.(\d)\.gn\.(.+)", r"neck.extra.\1.norm.\2"),
]


def deformable_attention(theirs: str, ours: str) -> list[Rule]:
    """Rules of one deformable attention; patterns' groups stand in ``ours`` as \\1 and so on."""
    parts = {
        "sampling_offsets": "sampling_offsets",
        "attention_weights": "weights",
        "value_proj": "values",
        "output_proj": "output",
    }
    return [(rf"{theirs}\.{part}\.(weight|bias)", rf"{ours}.{own}.\2") for part, own in parts.items()]


def layers(prefix: str, feed_forward: str) -> list[Rule]:
    """Feed-forward networks and norms of encoder and decoder layers."""
    start, own = rf"{prefix}(encoder|decoder)\.layers\.(\d)", r"\1.layers.\2"
    return [
        (rf"{start}\.{feed_forward}\.layers\.0\.0\.(.+)", rf"{own}.feed_forward.expand.\3"),
        (rf"{start}\.{feed_forward}\.layers\.0\.1\.(.+)", rf"{own}.feed_forward.activation.\3"),
        (rf"{start}\.{feed_forward}\.layers\.1\.(.+)", rf"{own}.feed_forward.contract.\3"),
        (rf"{start}\.norms\.(\d)\.(.+)", rf"{own}.norms.\3.\4"),
    ]


def outputs(head: str, decoder: str) -> list[Rule]:
    """Classes and boxes of the decoder's layers; ``decoder`` names the output of the one that group 1 numbers."""
    numbers = {"0": "0", "2": "1", "4": "2"}
    boxes = [
        (rf"{head}\.reg_branches\.(\d)\.{number}\.(.+)", rf"{decoder}.box.layers.{own}.\2")
        for number, own in numbers.items()
    ]
    return [(rf"{head}\.cls_branches\.(\d)\.(.+)", rf"{decoder}.classes.\2"), *boxes]


def proposed(head: str, number: int) -> list[Rule]:
    """Classes and boxes of the encoder, stored after those of the decoder layers."""
    rules = outputs(head, "queries.prediction_head")
    return [(pattern.replace(r"(\d)", f"({number})", 1), own) for pattern, own in rules]


DEFORMABLE: list[Rule] = [
    *BACKBONE,
    *NECK,
    (r"level_embed", r"tokenizer.level_embedding"),
    *deformable_attention(r"encoder\.layers\.(\d)\.self_attn", r"encoder.layers.\1.attention"),
    *deformable_attention(r"decoder\.layers\.(\d)\.cross_attn", r"decoder.layers.\1.cross_attention"),
    (r"decoder\.layers\.(\d)\.self_attn\.attn\.(.+)", r"decoder.layers.\1.self_attention.\2"),
    *layers("", "ffn"),
    (r"memory_trans_fc\.(.+)", r"queries.transform.\1"),
    (r"memory_trans_norm\.(.+)", r"queries.norm.\1"),
]
DEFORMABLE_DETR: list[Rule] = [
    *DEFORMABLE,
    (r"query_embedding\.weight", r"queries.embedding.weight"),
    (r"reference_points_fc\.(.+)", r"queries.reference_points.\1"),
    *outputs("bbox_head", "decoder.prediction_heads.0"),  # written once for each layer, which share them
]
DEFORMABLE_DETR_REFINE: list[Rule] = [*DEFORMABLE_DETR[:-4], *outputs("bbox_head", r"decoder.prediction_heads.\1")]
DEFORMABLE_DETR_TWOSTAGE: list[Rule] = [
    *DEFORMABLE,
    (r"pos_trans_fc\.(.+)", r"queries.query_generator.encode.project.\1"),
    (r"pos_trans_norm\.(.+)", r"queries.query_generator.encode.norm.\1"),
    *proposed("bbox_head", 6),
    *outputs("bbox_head", r"decoder.prediction_heads.\1"),
]
DINO: list[Rule] = [
    *DEFORMABLE,
    (r"query_embedding\.weight", r"queries.query_generator.content.weight"),
    (r"dn_query_generator\.label_embedding\.weight", r"denoising.embedding.weight"),
    (r"decoder\.ref_point_head\.layers\.(\d)\.(.+)", r"decoder.position.project.layers.\1.\2"),
    (r"decoder\.norm\.(.+)", r"decoder.norm.\1"),
    *proposed("bbox_head", 6),
    *outputs("bbox_head", r"decoder.prediction_heads.\1"),
]
ATTENTION = {
    "qcontent_proj": "query_content",
    "qpos_proj": "query_position",
    "qpos_sine_proj": "query_sine",
    "kcontent_proj": "key_content",
    "kpos_proj": "key_position",
    "v_proj": "value",
    "out_proj": "output",
}
CONDITIONAL: list[Rule] = [
    *BACKBONE,
    *NECK,
    (r"encoder\.layers\.(\d)\.self_attn\.attn\.(.+)", r"encoder.layers.\1.attention.\2"),
    *[
        (rf"decoder\.layers\.(\d)\.{kind}_attn\.{theirs}\.(.+)", rf"decoder.layers.\1.{kind}_attention.{ours}.\2")
        for kind in ("self", "cross")
        for theirs, ours in ATTENTION.items()
    ],
    *layers("", "ffn"),
    (r"decoder\.post_norm\.(.+)", r"decoder.norm.\1"),
    (r"decoder\.query_scale\.(.+)", r"decoder.scale.\1"),
    (r"bbox_head\.fc_cls\.(.+)", r"decoder.prediction_head.classes.\1"),
]
CONDITIONAL_DETR: list[Rule] = [
    *CONDITIONAL,
    (r"query_embedding\.weight", r"queries.embedding.weight"),
    (r"decoder\.ref_point_head\.(.+)", r"queries.point.\1"),
    (r"bbox_head\.reg_ffn\.layers\.0\.0\.(.+)", r"decoder.prediction_head.box.layers.0.\1"),
    (r"bbox_head\.reg_ffn\.layers\.1\.(.+)", r"decoder.prediction_head.box.layers.1.\1"),
    (r"bbox_head\.fc_reg\.(.+)", r"decoder.prediction_head.box.layers.2.\1"),
]
DAB_DETR: list[Rule] = [
    *CONDITIONAL,
    (r"query_embedding\.weight", r"queries.anchors.weight"),
    (r"encoder\.query_scale\.(.+)", r"encoder.scale.\1"),
    (r"decoder\.ref_point_head\.(.+)", r"decoder.position.\1"),
    (r"decoder\.ref_anchor_head\.(.+)", r"decoder.size.\1"),
    (r"bbox_head\.fc_reg\.(.+)", r"decoder.prediction_head.box.\1"),
]
DETRS: dict[str, list[Rule]] = {
    "deformable_detr": DEFORMABLE_DETR,
    "deformable_detr_refine": DEFORMABLE_DETR_REFINE,
    "deformable_detr_twostage": DEFORMABLE_DETR_TWOSTAGE,
    "conditional_detr": CONDITIONAL_DETR,
    "dab_detr": DAB_DETR,
    "dino": DINO,
    "dino_5scale_swin": [*mmdetection(0), *DINO],
}
