"""What a decoder is asked: queries, learned or made from the boxes that the encoder proposes; and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from poise.nn.head_layers import prior_bias
from poise.nn.transformer.layers import MLP
from poise.nn.transformer.positions import XYWH, box_sine, inverse_sigmoid
from poise.nn.transformer.tokens import Tokens
from poise.structures import Assignment, GroundTruth, QueryPredictions

Matching = Callable[[QueryPredictions, GroundTruth], Assignment]


@dataclass(frozen=True)
class DecoderOutput:
    """Classes and boxes of L layers."""

    logits: Tensor  # (L,B,Q,C) float32
    boxes: Tensor  # (L,B,Q,4) float32, center x, y, width, height in shares of the image


@dataclass(frozen=True)
class Queries:
    """Q queries of each image."""

    content: Tensor  # (B,Q,C)
    references: Tensor  # (B,Q,2|4) center x, y (and width, height) in shares of the image
    positions: Tensor | None = None  # (B,Q,C) encodings; None where the decoder makes them from the references
    proposed: DecoderOutput | None = None  # one layer: what the encoder said, where the queries come from it
    tokens: Tensor | None = None  # (B,Q) int64: the encoder's tokens that they were made from, where they were


@dataclass(frozen=True)
class SupervisedQueries:
    """D further queries of each image, in training: their objects are known, or matched in a way of their own."""

    queries: Queries
    assignment: Assignment | Matching  # (B,D), where ignored are those that are not taught; or what matches them
    groups: Tensor  # (B|1,D) int64 in [0,D): queries see only those of their group; -1: only itself
    stage: str  # what the match is called
    name: str  # how its losses are called, "dn_{}" for example
    sees_matching: bool = False  # whether they also see the first matching group (which never sees them)
    weight: float = 1.0  # of their losses

    def isolation(self, start: int = 0) -> Tensor:
        """(B|1,D) int64: queries with the same number see one another; none is in [0,start)."""
        own = -1 - torch.arange(start, start + self.groups.shape[1], device=self.groups.device)
        return torch.where(self.groups >= 0, self.groups + start, own)

    def blocked(self) -> Tensor:
        """(D,D) or (B,D,D) bool, true where the row's query must not see the column's, when nobody else is there."""
        group = self.isolation()
        blocked = group[:, :, None] != group[:, None]
        return blocked[0] if len(blocked) == 1 else blocked


def joined(queries: Queries, taught: Sequence[SupervisedQueries], groups: int = 1) -> tuple[Queries, Tensor | None]:
    """The taught queries, one group after another, and the matching ones behind them; and who must not see whom.

    Args:
        groups: into which the matching queries fall, one after another.

    Returns:
        T queries, and (T,T) or (B,T,T) bool, true where the row's query must not see the column's; None: all see all.
    """
    if not taught and groups == 1:
        return queries, None
    together = [*(part.queries for part in taught), queries]
    labels, sees, start = [], [], 0
    for part in taught:
        labels.append(part.isolation(start))
        sees.append(torch.full_like(labels[-1][0], part.sees_matching, dtype=torch.bool))
        start += part.groups.shape[1]
    matching = torch.arange(queries.content.shape[1], device=queries.content.device)
    labels.append(start + matching[None] // max(1, len(matching) // groups))
    batch = max(len(label) for label in labels)
    group = torch.cat([label.expand(batch, -1) for label in labels], 1)
    looking = torch.cat((*sees, torch.zeros_like(matching, dtype=torch.bool)))
    blocked = (group[:, :, None] != group[:, None]) & ~(looking[:, None] & (group == start)[:, None])
    return beside(together), blocked[0] if batch == 1 else blocked


def beside(parts: Sequence[Queries]) -> Queries:
    """All queries, one part after another, without what the encoder said."""
    positions = [part.positions for part in parts if part.positions is not None]
    return Queries(
        torch.cat([part.content for part in parts], 1),
        torch.cat([part.references for part in parts], 1),
        torch.cat(positions, 1) if positions else None,
    )


def cut(queries: Queries, count: int) -> tuple[Queries, Queries]:
    """The first ``count`` queries and the others, each with what the encoder said of them, if it said that."""
    total = queries.content.shape[1]
    proposed, rest = queries.proposed, None
    if proposed is not None and proposed.logits.shape[2] == total:
        rest = DecoderOutput(proposed.logits[:, :, count:], proposed.boxes[:, :, count:])
        proposed = DecoderOutput(proposed.logits[:, :, :count], proposed.boxes[:, :, :count])
    pairs = [(t[:, :count], t[:, count:]) for t in (queries.content, queries.references)]
    positions = queries.positions
    first, second = (None, None) if positions is None else (positions[:, :count], positions[:, count:])
    (content, others), (references, places) = pairs
    return Queries(content, references, first, proposed), Queries(others, places, second, rest)


class Output(nn.Module):
    """Classes and box of a query, in float32: half precision overflows where logits grow, and its boxes are coarse."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.classes = nn.Linear(channels, num_classes)
        self.box = MLP(channels, channels, 4, 3)
        self.reset_parameters()

    def reset_parameters(self, side: float = 0.0) -> None:
        """Every class starts rare, every box at its reference; ``side`` is added to logarithmic width and height."""
        nn.init.constant_(self.classes.bias, prior_bias())
        last = self.box.layers[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        nn.init.constant_(last.bias[2:], side)  # type: ignore[index]

    def logits(self, hidden: Tensor) -> Tensor:
        """(...,C) to (...,classes)."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.classes(hidden.float())

    def change(self, hidden: Tensor) -> Tensor:
        """(...,C) to (...,4), what is added to a reference before the sigmoid."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.box(hidden.float())


def moved(references: Tensor, change: Tensor, eps: float) -> Tensor:
    """Boxes (...,4) of references (...,2|4) and their change (...,4) before the sigmoid, in float32."""
    start = inverse_sigmoid(references.float(), eps)
    return (change + nn.functional.pad(start, (0, 4 - start.shape[-1]))).sigmoid()


class LearnedQueries(nn.Module):
    """A position and a content of each query, and a reference point from the position (Deformable-DETR)."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(count, 2 * channels)
        self.reference_points = nn.Linear(channels, 2)
        nn.init.xavier_uniform_(self.reference_points.weight)
        nn.init.zeros_(self.reference_points.bias)

    def forward(self, tokens: Tokens, count: int | None = None) -> Queries:
        """The first ``count`` queries; None: all."""
        positions, content = self.embedding.weight[:count].expand(len(tokens.values), -1, -1).chunk(2, -1)
        return Queries(content, self.reference_points(positions).float().sigmoid(), positions)


def first_class(logits: Tensor) -> Tensor:
    """Tokens (B,N) by their first class, which then says "some object" (two-stage Deformable-DETR)."""
    return logits[..., 0]


def best_class(logits: Tensor) -> Tensor:
    """Tokens (B,N) by their best class (DINO)."""
    return logits.amax(-1)


class SelectedQueries(nn.Module):
    """Queries at the best of the boxes that all tokens propose (two-stage Deformable-DETR, DINO).

    Args:
        count: of queries; fewer where there are fewer tokens.
        make: from the chosen boxes (B,Q,4), without gradient, to queries.
        rank: from the tokens' logits (B,N,C) to what they are chosen by. With ``first_class`` the answers of all
            tokens are supervised, classes apart; otherwise those of the chosen with their classes.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        count: int,
        make: Callable[[Tensor], Queries],
        rank: Callable[[Tensor], Tensor] = best_class,
    ) -> None:
        super().__init__()
        self.transform, self.norm = nn.Linear(channels, channels), nn.LayerNorm(channels)
        self.output = Output(channels, num_classes)
        self.count, self.make, self.rank = count, make, rank

    @property
    def any_class(self) -> bool:
        """Whether the proposals' first class stands for all."""
        return self.rank is first_class

    def forward(self, tokens: Tokens, count: int | None = None) -> Queries:
        """Queries at the ``count`` best boxes; None: at as many as there are queries."""
        start, usable = proposals(tokens)
        hidden = self.norm(self.transform(torch.where(usable[..., None], tokens.values, 0.0)))
        logits = self.output.logits(hidden)
        boxes = (self.output.change(hidden) + start).sigmoid()
        best = self.rank(logits.detach()).sort(dim=1, descending=True, stable=True).indices[:, : count or self.count]
        chosen = DecoderOutput(_take(logits, best)[None], _take(boxes, best)[None])
        made = self.make(chosen.boxes[0].detach())
        proposed = DecoderOutput(logits[None], boxes[None]) if self.any_class else chosen
        return Queries(made.content, made.references, made.positions, proposed, best)


class GroupedQueries(SelectedQueries):
    """Several groups of queries, each with a selection and contents of its own (Group-DETR: Chen et al. 2023).

    The first group alone is asked where a ``count`` is given, and keeps the names of a plain selection's parts.
    """

    def __init__(self, groups: Sequence[SelectedQueries]) -> None:
        first, *others = groups
        nn.Module.__init__(self)
        self.transform, self.norm, self.output = first.transform, first.norm, first.output
        self.count, self.make, self.rank = first.count, first.make, first.rank
        self.others = nn.ModuleList(others)

    def forward(self, tokens: Tokens, count: int | None = None) -> Queries:
        made = [super().forward(tokens, count), *(group(tokens) for group in self.others if count is None)]
        proposed = [group.proposed for group in made if group.proposed is not None]
        said = DecoderOutput(torch.cat([p.logits for p in proposed], 2), torch.cat([p.boxes for p in proposed], 2))
        return replace(beside(made), proposed=said)


def proposals(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """The box of each token before the sigmoid, (B,N,4), and whether the token may propose, (B,N).

    A token starts from a square of 1/20 of the image, twice as large on each coarser level. It may not propose where
    this box leaves (0.01,0.99) or in the padding; there all coordinates are infinite: the whole image and beyond.
    """
    counts = [height * width for height, width in tokens.shapes]
    side = torch.cat([torch.full((n, 2), 0.05 * 2.0**i, device=tokens.filled.device) for i, n in enumerate(counts)])
    centers = tokens.centers()
    boxes = torch.cat((centers, side.expand(len(centers), -1, -1)), -1)
    usable = ((boxes > 0.01) & (boxes < 0.99)).all(-1) & ~tokens.padding
    start = inverse_sigmoid(boxes, 1e-6)
    return torch.where(usable[..., None], start, torch.inf), usable


class BoxQueries(nn.Module):
    """Position and content from the box (two-stage Deformable-DETR)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encode = BoxEncoding(channels, 2 * channels)

    def forward(self, boxes: Tensor) -> Queries:
        positions, content = self.encode(boxes).chunk(2, -1)
        return Queries(content, boxes, positions)


class MixedQueries(nn.Module):
    """Content learned, the place from the box (DINO's mixed query selection)."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.content = nn.Embedding(count, channels)

    def forward(self, boxes: Tensor) -> Queries:
        content = self.content.weight[: boxes.shape[1]].expand(len(boxes), -1, -1)
        return Queries(content, boxes)


class MixedPositionedQueries(MixedQueries):
    """The same with a position from the box, half of an encoding whose other half is not used (Co-Deformable-DETR)."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__(channels, count)
        self.encode = BoxEncoding(channels, 2 * channels)

    def forward(self, boxes: Tensor) -> Queries:
        queries = super().forward(boxes)
        return Queries(queries.content, boxes, self.encode(boxes).chunk(2, -1)[0])


class BoxEncoding(nn.Module):
    """(...,4) boxes in shares of the image to (...,out): the normalized projection of their sine encodings."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.width = channels // 2
        self.project, self.norm = nn.Linear(2 * channels, out_channels), nn.LayerNorm(out_channels)

    def forward(self, boxes: Tensor) -> Tensor:
        return self.norm(self.project(box_sine(boxes, self.width, XYWH)))


def _take(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
