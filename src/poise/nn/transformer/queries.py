"""Object queries of the DETR family: learned, selected from the encoder's proposals, or supervised in training only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from poise.nn.transformer.distinct import POOL, distinct_first
from poise.nn.transformer.layers import PredictionHead, inverse_sigmoid
from poise.nn.transformer.tokens import XYWH, Tokens, box_sine
from poise.structures import Assignment, GroundTruth, QueryPredictions

Matcher = Callable[[QueryPredictions, GroundTruth], Assignment]


@dataclass(frozen=True)
class DecoderOutput:
    """Classes and boxes predicted by L decoder layers."""

    logits: Tensor  # (L,B,Q,C) float32
    boxes: Tensor  # (L,B,Q,4) float32, normalized (center x, center y, width, height)
    one_to_many: DecoderOutput | None = None  # of the same layers, for supervision one to many in training (MS-DETR)


@dataclass(frozen=True)
class Queries:
    """Q object queries of each image."""

    content: Tensor  # (B,Q,C)
    references: Tensor  # (B,Q,2|4) normalized reference points or boxes (center x, center y, width, height)
    positions: Tensor | None = None  # (B,Q,C) position encodings; None: the decoder computes them from the references
    encoder_output: DecoderOutput | None = None  # the encoder's proposals (one layer), where queries are made from them
    token_index: Tensor | None = None  # (B,Q) int64 tokens that the queries were selected from


@dataclass(frozen=True)
class SupervisedQueries:
    """D additional queries of each image in training, with known assignment or a matcher of their own."""

    queries: Queries
    assignment: Assignment | Matcher  # (B,D), ignored queries have no loss; or what matches them
    groups: Tensor  # (B|1,D) int64 in [0,D), queries attend to those of their group; -1: only to themselves
    match_name: str  # key of the match in ``StepOutput.matches``
    loss_name: str  # format of the losses' names, for example "dn_{}"
    attends_to_matched: bool = False  # whether they also attend to the first group of matched queries
    weight: float = 1.0  # of the losses

    def group_ids(self, start: int = 0) -> Tensor:
        """Return ids (B|1,D) int64 of attention groups: ``groups`` from ``start`` on, unique negative ids for -1."""
        alone = -1 - torch.arange(start, start + self.groups.shape[1], device=self.groups.device)
        return torch.where(self.groups >= 0, self.groups + start, alone)

    def attention_mask(self) -> Tensor:
        """Return the attention mask (D,D) or (B,D,D) of these queries alone, True where attention is not allowed."""
        group = self.group_ids()
        mask = group[:, :, None] != group[:, None]
        return mask[0] if len(mask) == 1 else mask


def concatenate_with_mask(
    queries: Queries, supervised: Sequence[SupervisedQueries], groups: int = 1
) -> tuple[Queries, Tensor | None]:
    """Concatenate supervised queries and, behind them, the matched queries; mask attention between their groups.

    Args:
        groups: number of equal groups that the matched queries consist of.

    Returns:
        T queries, and the attention mask (T,T) or (B,T,T) bool, True where the row's query may not attend to the
        column's; None: all attention is allowed.
    """
    if not supervised and groups == 1:
        return queries, None
    ids, attends, start = [], [], 0
    for part in supervised:
        ids.append(part.group_ids(start))
        attends.append(torch.full_like(ids[-1][0], part.attends_to_matched, dtype=torch.bool))
        start += part.groups.shape[1]
    matched = torch.arange(queries.content.shape[1], device=queries.content.device)
    ids.append(start + matched[None] // max(1, len(matched) // groups))
    batch = max(len(part) for part in ids)
    group = torch.cat([part.expand(batch, -1) for part in ids], 1)
    attends_to_first = torch.cat((*attends, torch.zeros_like(matched, dtype=torch.bool)))[:, None]
    mask = (group[:, :, None] != group[:, None]) & ~(attends_to_first & (group == start)[:, None])
    return concatenate([*(part.queries for part in supervised), queries]), mask[0] if batch == 1 else mask


def concatenate(parts: Sequence[Queries]) -> Queries:
    """Concatenate queries along Q, without the encoder's output."""
    positions = [part.positions for part in parts if part.positions is not None]
    return Queries(
        torch.cat([part.content for part in parts], 1),
        torch.cat([part.references for part in parts], 1),
        torch.cat(positions, 1) if positions else None,
    )


def split_queries(queries: Queries, count: int) -> tuple[Queries, Queries]:
    """Split into the first ``count`` queries and the rest, each with its part of the encoder's output.

    The encoder's output of all tokens (two-stage Deformable-DETR) stays with the first part.
    """
    first, rest = queries.encoder_output, None
    if first is not None and first.logits.shape[2] == queries.content.shape[1]:
        rest = DecoderOutput(first.logits[:, :, count:], first.boxes[:, :, count:])
        first = DecoderOutput(first.logits[:, :, :count], first.boxes[:, :, :count])
    content, references, positions = queries.content, queries.references, queries.positions
    before, behind = (None, None) if positions is None else (positions[:, :count], positions[:, count:])
    return (
        Queries(content[:, :count], references[:, :count], before, first),
        Queries(content[:, count:], references[:, count:], behind, rest),
    )


class LearnedQueries(nn.Module):
    """Learned position and content of each query, and a reference point computed from the position
    (Deformable-DETR)."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(count, 2 * channels)
        self.reference_points = nn.Linear(channels, 2)
        nn.init.xavier_uniform_(self.reference_points.weight)
        nn.init.zeros_(self.reference_points.bias)

    def forward(self, tokens: Tokens, count: int | None = None) -> Queries:
        """Return the first ``count`` queries; None: all."""
        positions, content = self.embedding.weight[:count].expand(tokens.values.shape[0], -1, -1).chunk(2, -1)
        return Queries(content, self.reference_points(positions).float().sigmoid(), positions)


def first_class(logits: Tensor) -> Tensor:
    """Score tokens (B,N) by their first class, which stands for any object (two-stage Deformable-DETR)."""
    return logits[..., 0]


def best_class(logits: Tensor) -> Tensor:
    """Score tokens (B,N) by their highest class (DINO)."""
    return logits.amax(-1)


class SelectedQueries(nn.Module):
    """Queries at the best boxes among the encoder's proposals, one of each token (two-stage Deformable-DETR, DINO).

    Args:
        count: number of queries; fewer where there are fewer tokens.
        query_generator: maps the selected boxes (B,Q,4), detached, to queries.
        score: maps the tokens' logits (B,N,C) to the scores (B,N) that they are selected by. With ``first_class`` the
            proposals of all tokens are supervised, without classes; otherwise the selected ones, with classes.
        distinct: IoU with a better proposal above which a proposal is selected last (DDQ: 0.8); 0: by score alone.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        count: int,
        query_generator: Callable[[Tensor], Queries],
        *,
        score: Callable[[Tensor], Tensor] = best_class,
        distinct: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= distinct < 1:
            raise ValueError(f"distinct_queries={distinct}: an IoU below 1, such as 0.8, or 0 for none")
        self.distinct = distinct
        self.transform, self.norm = nn.Linear(channels, channels), nn.LayerNorm(channels)
        self.prediction_head = PredictionHead(channels, num_classes)
        self.count, self.query_generator, self.score = count, query_generator, score

    @property
    def class_agnostic(self) -> bool:
        """Whether the first class of proposals stands for all classes."""
        return self.score is first_class

    def forward(self, tokens: Tokens, count: int | None = None) -> Queries:
        """Return queries at the ``count`` best boxes; None: as many as there are queries."""
        start, usable = token_proposals(tokens)
        hidden = self.norm(self.transform(torch.where(usable[..., None], tokens.values, 0.0)))
        logits, offsets = self.prediction_head(hidden)
        boxes = (offsets + start).sigmoid()
        count = count or self.count
        order = self.score(logits.detach()).sort(dim=1, descending=True, stable=True).indices
        if self.distinct:
            order = distinct_first(boxes.detach(), order[:, : POOL * count], self.distinct)
        index = order[:, :count]
        selected = DecoderOutput(
            logits.gather(1, index[..., None].expand(-1, -1, logits.shape[2]))[None],
            boxes.gather(1, index[..., None].expand(-1, -1, 4))[None],
        )
        queries = self.query_generator(selected.boxes[0].detach())
        proposals = DecoderOutput(logits[None], boxes[None]) if self.class_agnostic else selected
        return Queries(queries.content, queries.references, queries.positions, proposals, index)


class GroupedQueries(SelectedQueries):
    """Groups of selected queries, each with a selection and contents of its own (Group-DETR: Chen et al. 2023).

    With a ``count`` (at inference) the first group alone is used; its parameters keep the names of a plain selection.
    """

    def __init__(self, groups: Sequence[SelectedQueries]) -> None:
        first, *others = groups
        nn.Module.__init__(self)
        self.transform, self.norm, self.prediction_head = first.transform, first.norm, first.prediction_head
        self.count, self.query_generator, self.score = first.count, first.query_generator, first.score
        self.distinct = first.distinct
        self.other_groups = nn.ModuleList(others)

    def forward(self, tokens: Tokens, count: int | None = None) -> Queries:
        groups = [super().forward(tokens, count), *(g(tokens) for g in self.other_groups if count is None)]
        outputs = [group.encoder_output for group in groups if group.encoder_output is not None]
        joint = DecoderOutput(torch.cat([o.logits for o in outputs], 2), torch.cat([o.boxes for o in outputs], 2))
        return replace(concatenate(groups), encoder_output=joint)


def token_proposals(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Return each token's initial box before the sigmoid, (B,N,4), and whether the token may propose, (B,N).

    The box is a square centered on the token, of side 1/20 of the image on the finest level and twice as large on each
    coarser one. A token may not propose in the padding or where a coordinate lies outside (0.01,0.99); its coordinates
    are then infinite.
    """
    counts = [height * width for height, width in tokens.shapes]
    device = tokens.centers.device
    side = torch.cat([torch.full((n, 2), 0.05 * 2.0**i, device=device) for i, n in enumerate(counts)])
    boxes = torch.cat((tokens.centers, side.expand(tokens.centers.shape[0], -1, -1)), -1)
    usable = ((boxes > 0.01) & (boxes < 0.99)).all(-1) & ~tokens.padding_mask
    start = inverse_sigmoid(boxes, 1e-6)
    return torch.where(usable[..., None], start, torch.inf), usable


class BoxQueries(nn.Module):
    """Position and content computed from the box (two-stage Deformable-DETR)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encode = BoxEncoding(channels, 2 * channels)

    def forward(self, boxes: Tensor) -> Queries:
        positions, content = self.encode(boxes).chunk(2, -1)
        return Queries(content, boxes, positions)


class MixedQueries(nn.Module):
    """Learned content, references from the boxes (mixed query selection, DINO section 3.4)."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.content = nn.Embedding(count, channels)

    def forward(self, boxes: Tensor) -> Queries:
        content = self.content.weight[: boxes.shape[1]].expand(boxes.shape[0], -1, -1)
        return Queries(content, boxes)


class MixedPositionedQueries(MixedQueries):
    """Mixed queries with positions from the boxes: one half of their encoding, the other is unused
    (Co-Deformable-DETR)."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__(channels, count)
        self.encode = BoxEncoding(channels, 2 * channels)

    def forward(self, boxes: Tensor) -> Queries:
        queries = super().forward(boxes)
        return Queries(queries.content, boxes, self.encode(boxes).chunk(2, -1)[0])


class BoxEncoding(nn.Module):
    """Encodes normalized boxes (...,4) as (...,out): sine encoding, linear layer, layer norm."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.width = channels // 2
        self.project, self.norm = nn.Linear(2 * channels, out_channels), nn.LayerNorm(out_channels)

    def forward(self, boxes: Tensor) -> Tensor:
        return self.norm(self.project(box_sine(boxes, self.width, XYWH)))
