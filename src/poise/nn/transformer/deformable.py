"""The decoder of Deformable-DETR (Zhu et al. 2021) and of its descendants DINO and Co-DETR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from poise.nn.transformer.layers import MLP, DeformableDecoderLayer, PredictionHead, refine_boxes
from poise.nn.transformer.queries import DecoderOutput, Queries
from poise.nn.transformer.recollection import State, collect, repeat_sets
from poise.nn.transformer.tokens import YXWH, Tokens, box_sine

Refinement = Literal["none", "once", "twice"]


class BoxPosition(nn.Module):
    """Computes positions of queries from their reference boxes before every layer (DAB-DETR, DINO).

    Boxes are normalized by the memory's first level, padding included, as in the original.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.width = channels // 2
        self.project = MLP(2 * channels, channels, channels, 2)

    def forward(self, references: Tensor, memory: Tokens) -> Tensor:
        on_first = references * memory.valid_ratios[:, None, 0].repeat(1, 1, 2)
        return self.project(box_sine(on_first, self.width, YXWH))


class DeformableDecoder(nn.Module):
    """Decoder with a prediction after each layer.

    Args:
        layers: decoder layers.
        heads: prediction heads, one for each layer or a single one for all layers.
        refine: ``none``: references stay as they are; ``once``: the box of a layer is the reference of the next
            (iterative box refinement); ``twice``: in addition, gradients of the next layer's box reach this layer's box
            (look forward twice, DINO section 3.5).
        position: computes positions of queries; None: the queries bring their positions.
        norm: applied to the hidden states before the prediction heads; refinement of references reads them without it,
            as in DINO.
        eps: of the inverse sigmoid of references.
        one_to_many: branches with predictions for one-to-many supervision, one for each layer or a single one
            (MS-DETR); empty: none.
    """

    def __init__(
        self,
        layers: list[DeformableDecoderLayer],
        heads: list[PredictionHead],
        refine: Refinement = "once",
        *,
        position: BoxPosition | None = None,
        norm: nn.LayerNorm | None = None,
        eps: float = 1e-5,
        one_to_many: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.layers, self.prediction_heads = nn.ModuleList(layers), nn.ModuleList(heads)
        self.refine, self.position, self.norm, self.eps = refine, position, norm, eps
        self.one_to_many = nn.ModuleList(one_to_many)

    def forward(
        self,
        queries: Queries,
        memory: Tokens,
        attention_mask: Tensor | None = None,
        recollect: bool = False,
        one_to_many: slice | None = None,
    ) -> DecoderOutput:
        """Return the output of all layers.

        Args:
            attention_mask: (Q,Q) or (B,Q,Q) bool, True where the row's query may not attend to the column's.
            recollect: return the output of all collected sets of queries, layer by layer, the ordinary one of each
                layer last (see ``recollection``).
            one_to_many: queries whose predictions for one-to-many supervision are returned, too; None: none.
        """
        x, references = queries.content, queries.references
        logits: list[Tensor] = []
        boxes: list[Tensor] = []
        many_logits: list[Tensor] = []
        many_boxes: list[Tensor] = []
        start = references  # what box offsets are added to; under "twice" it carries the previous layer's gradient
        older: State = (x, references, start)
        for i, layer in enumerate(self.layers):
            sets = x.shape[1] // queries.content.shape[1]
            if self.position is not None:
                positions = self.position(references, memory)
            else:
                positions = queries.positions if sets == 1 else repeat_sets(queries.positions, sets)
            x, located = layer(x, positions, references, memory, attention_mask, sets)
            head: Any = self.prediction_heads[min(i, len(self.prediction_heads) - 1)]
            class_logits, offsets = head(x if self.norm is None else self.norm(x))
            logits += class_logits.chunk(sets, 1)
            refined = refine_boxes(start, offsets, self.eps)
            boxes += refined.chunk(sets, 1)
            if one_to_many is not None:
                branch = self.one_to_many[min(i, len(self.one_to_many) - 1)]
                class_logits, offsets_of_many = branch(x[:, one_to_many], located[:, one_to_many], head, self.norm)
                many_logits.append(class_logits)
                many_boxes.append(refine_boxes(start[:, one_to_many], offsets_of_many, self.eps))
            if self.refine != "none":
                if self.norm is not None or self.refine == "twice":
                    offsets = offsets if self.norm is None else head.box_offsets(x)
                    refined = refine_boxes(references, offsets, self.eps)
                references = refined.detach()
                start = refined if self.refine == "twice" else references
            if recollect:
                newer = (x, references, start)
                (x, references, start), older = collect(older, newer), newer
        further = DecoderOutput(torch.stack(many_logits), torch.stack(many_boxes)) if many_logits else None
        return DecoderOutput(torch.stack(logits), torch.stack(boxes), further)
