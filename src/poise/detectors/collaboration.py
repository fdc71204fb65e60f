"""Collaborative training (Co-DETR: Zong et al. 2023): auxiliary branches teach the encoder and lend queries.

One-to-one matching gives encoder and decoder few positives. So the encoder's memory is made a pyramid again and read by
branches that give every object many places (ATSS, Faster R-CNN, any branch of ``poise.branches``), which makes its
features tell objects from background; and the places that a branch found positive become further queries of the same
decoder, whose objects are known. All of this is gone at inference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from poise.boxes import normalize_boxes
from poise.criteria.protocol import ScaledCriterion
from poise.nn.roi_align import RegionAlign
from poise.nn.transformer.positions import inverse_sigmoid
from poise.nn.transformer.queries import BoxEncoding, Queries, SupervisedQueries
from poise.nn.transformer.tokens import Tokens
from poise.sample import restrict_to_sample
from poise.sample.positives_first import PositivesFirst
from poise.structures import Assignment, Detections, GroundTruth, Match, PairWeights, Progress, StepOutput

Reader = Callable[[Sequence[Tensor], Tensor, Tensor], Tensor]  # (maps, boxes (B,S,4), places (B,S)) to (B,S,C)


class BoxContent(nn.Module):
    """A lent query's content is its box; its position the decoder makes itself (Co-DINO).

    Args:
        features: and what the branch saw there, as in the article; the published Co-DINO leaves that out.
    """

    def __init__(self, channels: int, features: bool = False) -> None:
        super().__init__()
        self.encode = BoxEncoding(channels, channels)
        self.seen = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels)) if features else None

    def forward(self, shares: Tensor, read: Callable[[], Tensor]) -> Queries:
        content = self.encode(inverse_sigmoid(shares).sigmoid())
        return Queries(content if self.seen is None else content + self.seen(read()), shares)


class BoxAndFeatures(nn.Module):
    """Position and content from the box, and what the branch saw there (Co-Deformable-DETR, eq. 3 of the article).

    Args:
        wide: the head's own embedding is a vector, as the article means it; published is a single number, added to
            all channels alike.
    """

    def __init__(self, channels: int, wide: bool = False) -> None:
        super().__init__()
        self.encode = BoxEncoding(channels, 2 * channels)
        self.project, self.norm = nn.Linear(channels, channels), nn.LayerNorm(channels)
        self.head = nn.Parameter(torch.zeros(channels if wide else 1))

    def forward(self, shares: Tensor, read: Callable[[], Tensor]) -> Queries:
        positions, content = self.encode(inverse_sigmoid(shares).sigmoid()).chunk(2, -1)
        return Queries(content + self.norm(self.project(read())), shares, positions + self.head)


class PointAndFeatures(BoxAndFeatures):
    """As above for a decoder whose references are points: the box's center (the article's Co-Conditional-DETR)."""

    def forward(self, shares: Tensor, read: Callable[[], Tensor]) -> Queries:
        queries = super().forward(shares, read)
        return replace(queries, references=shares[..., :2])


class AuxiliaryHead(nn.Module):
    """An auxiliary branch with the queries that it lends.

    Args:
        name: of the branch, before its matches' names.
        branch: ``(maps, truth, progress) -> StepOutput``; its last match is what is lent.
        make: from boxes in shares of the image, and a function that reads the places' features, to queries.
        read: features of places, for ``make``.
        weight: of the losses of the lent queries.
    """

    def __init__(
        self,
        name: str,
        branch: nn.Module,
        make: nn.Module,
        sampler: PositivesFirst,
        read: Reader,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.name, self.branch, self.make, self.sampler, self.read = name, branch, make, sampler, read
        self.weight = weight

    def forward(
        self, maps: Sequence[Tensor], truth: GroundTruth, progress: Progress, number: int
    ) -> tuple[StepOutput, SupervisedQueries]:
        """The branch's step, and its queries as the ``number``-th group."""
        output: StepOutput = self.branch(maps, truth, progress)
        *_, match = output.matches.values()
        return output, self.lend(match, maps, truth, number)

    def lend(self, match: Match, maps: Sequence[Tensor], truth: GroundTruth, number: int) -> SupervisedQueries:
        told = match.assignment
        assignment = told if isinstance(told, Assignment) else foremost(told)
        sample = self.sampler(assignment)
        everywhere = match.predictions.priors.boxes.detach().float().expand(len(truth.sizes), -1, -1)
        boxes = everywhere.gather(1, sample.index[..., None].expand(-1, -1, 4))
        queries = self.make(normalize_boxes(boxes, truth.sizes), lambda: self.read(maps, boxes, sample.index))
        together = sample.mask.any(0, keepdim=True) if self.sampler.fill else sample.mask
        groups = torch.where(together, 0, -1)
        stage, name = f"{self.name}/queries", f"{{}}_aux{number}"
        return SupervisedQueries(
            queries, restrict_to_sample(assignment, sample), groups, stage, name, weight=self.weight
        )


def foremost(weights: PairWeights, share: float = 0.5) -> Assignment:
    """Positive are the places that weigh at least ``share`` as much as the best place of the same object."""
    positive = weights.positive.detach()
    kept = torch.where(positive >= share * positive.amax(1, keepdim=True), positive, 0.0)
    return replace(weights, positive=kept).hard()


class Collaboration(nn.Module):
    """The pyramid over the memory, and the lenders that read it.

    Args:
        adapter: the memory's maps to the branches'.
        weight: of the branches' losses.
    """

    def __init__(self, adapter: nn.Module, lenders: Sequence[AuxiliaryHead], weight: float) -> None:
        super().__init__()
        self.adapter, self.lenders, self.weight = adapter, nn.ModuleList(lenders), weight

    def forward(
        self, memory: Tokens, truth: GroundTruth, progress: Progress
    ) -> tuple[StepOutput, list[SupervisedQueries]]:
        """The weighted losses and the matches of all branches, and the queries that they lend."""
        maps, losses, matches, lent = self.pyramid(memory), {}, {}, []
        for number, lender in enumerate(self.lenders):
            output, queries = lender(maps, truth, progress, number)
            for term, loss in output.losses.items():
                shared = "rpn" in term and term not in losses  # the originals number no proposal network
                losses[term if shared else f"{term}{number}"] = loss * self.weight
            matches.update({f"{lender.name}/{stage}": self._scaled(match) for stage, match in output.matches.items()})
            lent.append(queries)
        return StepOutput(losses, matches), lent

    def _scaled(self, match: Match) -> Match:
        known = hasattr(match.criterion, "weights")
        return replace(match, criterion=ScaledCriterion(match.criterion, self.weight)) if known else match

    def pyramid(self, memory: Tokens) -> list[Tensor]:
        """The maps that the branches read."""
        maps: list[Tensor] = self.adapter(memory.maps())
        return maps

    @property
    def names(self) -> tuple[str, ...]:
        """Of the branches, in their order."""
        return tuple(str(lender.name) for lender in self.lenders)

    def predict(self, memory: Tokens, sizes: Tensor, number: int) -> Detections:
        """What a branch finds by itself."""
        branch = self.lenders[number].branch
        return branch.predict(self.pyramid(memory), sizes)  # type: ignore[union-attr,operator]


class Downsample(nn.Sequential):
    """The published adapter: a coarser map of the coarsest, by one 3x3 convolution of stride 2 and a group norm."""

    def __init__(self, channels: int) -> None:
        super().__init__(*_conv(channels, 2))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [*maps, super().forward(maps[-1])]


class FromOneScale(nn.Module):
    """The article's adapter for encoders of one map: finer maps by bilinear upsampling and a 3x3 convolution, coarser
    ones by 3x3 convolutions of stride 2, one after another. (The original code has none; group norms as in its other.)
    """

    def __init__(self, channels: int, finer: int = 2, coarser: int = 2) -> None:
        super().__init__()
        self.finer = nn.ModuleList([_conv(channels, 1) for _ in range(finer)])
        self.coarser = nn.ModuleList([_conv(channels, 2) for _ in range(coarser)])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        (one,) = maps
        levels = [one]
        for conv in self.finer:
            levels.insert(0, conv(interpolate(levels[0], scale_factor=2.0, mode="bilinear")))
        for conv in self.coarser:
            levels.append(conv(levels[-1]))
        return levels


def _conv(channels: int, stride: int) -> nn.Sequential:
    norm = nn.GroupNorm(min(32, max(1, channels // 4)), channels)
    return nn.Sequential(nn.Conv2d(channels, channels, 3, stride, 1), norm)


@dataclass(frozen=True)
class Cells:
    """Reads places of dense heads off the cells that they lie in."""

    anchors: int = 1  # places of a cell

    def __call__(self, maps: Sequence[Tensor], boxes: Tensor, places: Tensor) -> Tensor:
        tokens = torch.cat([level.flatten(2) for level in maps], 2).transpose(1, 2)
        cell = places // self.anchors
        return tokens.gather(1, cell[..., None].expand(-1, -1, tokens.shape[2]))


@dataclass(frozen=True)
class Regions:
    """Reads regions as their second stage does, and averages."""

    align: RegionAlign

    def __call__(self, maps: Sequence[Tensor], boxes: Tensor, places: Tensor) -> Tensor:
        return self.align(maps, boxes).mean((2, 3)).unflatten(0, places.shape)
