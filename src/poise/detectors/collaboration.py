"""Collaborative hybrid assignments training (Co-DETR: Zong et al. 2023).

One-to-one matching assigns few positive queries, too few to train encoder and decoder efficiently. Co-DETR adds
auxiliary heads to the encoder's output, such as ATSS and Faster R-CNN, which are supervised by one-to-many assignment
(section 3.2), and makes customized positive queries for the decoder from the positives of these heads; they need no
matching, because their objects are known (section 3.3). Both are used in training only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from poise.boxes import normalize_boxes
from poise.nn.kernels.roi_align import RegionAlign
from poise.nn.transformer.layers import inverse_sigmoid
from poise.nn.transformer.queries import BoxEncoding, Queries, SupervisedQueries
from poise.nn.transformer.tokens import Tokens
from poise.protocols import Branch
from poise.structures import Assignment, Detections, GroundTruth, Match, Progress, Sample, StepOutput

LEAST_FRACTION = 0.5  # of an object's highest positive weight, above which a prior of a soft assignment is positive

FeatureReader = Callable[[Sequence[Tensor], Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class PositiveQuerySampler:
    """Samples the priors that become customized positive queries: positives first, at random if there are too many.

    The published code fills every image with random negatives up to the number of positives of the image that has most,
    and at least to ``min_queries``; the article uses positives alone.

    Args:
        max_queries: queries of an image.
        min_queries: queries of an image with ``pad_with_negatives``.
        pad_with_negatives: as in the published code.
        random: False takes the lowest indices instead.
    """

    needs_loss: ClassVar[bool] = False
    max_queries: int = 300
    min_queries: int = 9
    pad_with_negatives: bool = True
    random: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.min_queries <= self.max_queries:
            raise ValueError(f"{self}: 1 <= min_queries <= max_queries is required")

    @torch.no_grad()
    def __call__(
        self, assignment: Assignment, generator: torch.Generator | None = None, loss: Tensor | None = None
    ) -> Sample:
        """Return at most ``max_queries`` priors of each image, positives first."""
        candidates = assignment.positive | (assignment.negative if self.pad_with_negatives else False)
        shape, device = candidates.shape, candidates.device
        if self.random:
            key = torch.rand(shape, generator=generator, device=device, dtype=torch.float64)
        else:
            key = torch.arange(shape[1], 0, -1, device=device, dtype=torch.float64) / (shape[1] + 1)
        key = key + candidates.long() + assignment.positive.long()
        index = key.topk(min(self.max_queries, shape[1]), 1).indices
        count = assignment.positive.sum(1)
        if self.pad_with_negatives:
            count = count.amax().clamp(min=self.min_queries).expand_as(count)
        slots = torch.arange(index.shape[1], device=device)
        return Sample(index, (slots < count[:, None]) & candidates.gather(1, index))


class BoxQueryGenerator(nn.Module):
    """Makes the content of a query from its box; the decoder computes the position (Co-DINO).

    Args:
        features: add the projected features of the auxiliary head's prior, as in the article; the published Co-DINO
            uses the box alone.
    """

    def __init__(self, channels: int, features: bool = False) -> None:
        super().__init__()
        self.encode = BoxEncoding(channels, channels)
        self.project_features = None
        if features:
            self.project_features = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels))

    def forward(self, boxes: Tensor, read_features: Callable[[], Tensor]) -> Queries:
        """Make queries from normalized boxes (B,D,4); ``read_features()`` returns features (B,D,C)."""
        content = self.encode(inverse_sigmoid(boxes).sigmoid())
        if self.project_features is not None:
            content = content + self.project_features(read_features())
        return Queries(content, boxes)


class BoxFeatureQueryGenerator(nn.Module):
    """Makes position and content from the box, and adds the projected features (Co-Deformable-DETR; article, eq. 4).

    Args:
        vector_embedding: learn a vector as the embedding of the auxiliary head; the published code learns one number,
            added to all channels.
    """

    def __init__(self, channels: int, vector_embedding: bool = False) -> None:
        super().__init__()
        self.encode = BoxEncoding(channels, 2 * channels)
        self.project, self.norm = nn.Linear(channels, channels), nn.LayerNorm(channels)
        self.head_embedding = nn.Parameter(torch.zeros(channels if vector_embedding else 1))

    def forward(self, boxes: Tensor, read_features: Callable[[], Tensor]) -> Queries:
        """Make queries from normalized boxes (B,D,4); ``read_features()`` returns features (B,D,C)."""
        positions, content = self.encode(inverse_sigmoid(boxes).sigmoid()).chunk(2, -1)
        return Queries(content + self.norm(self.project(read_features())), boxes, positions + self.head_embedding)


class PointFeatureQueryGenerator(BoxFeatureQueryGenerator):
    """The same for a decoder whose references are points: the centers of the boxes (Co-Conditional-DETR)."""

    def forward(self, boxes: Tensor, read_features: Callable[[], Tensor]) -> Queries:
        return replace(super().forward(boxes, read_features), references=boxes[..., :2])


class AuxiliaryHead(nn.Module):
    """An auxiliary head with one-to-many assignment, and the customized positive queries made from its positives.

    Args:
        name: prefix of its matches' names.
        branch: ``(maps, truth, progress) -> StepOutput``, with ``predict``.
        match_name: key of the branch's match whose positives become queries.
        query_generator: ``(boxes, read_features) -> Queries`` of normalized boxes (B,D,4); None: the head makes no
            queries.
        sampler: selects the priors.
        read_features: ``(maps, boxes, index) -> (B,D,C)`` features of priors, see ``CellFeatures``.
        query_weight: of the losses of the queries (lambda_1).
    """

    def __init__(
        self,
        name: str,
        branch: Branch,
        match_name: str,
        *,
        query_generator: nn.Module | None,
        sampler: PositiveQuerySampler,
        read_features: FeatureReader,
        query_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.name, self.branch, self.match_name = name, branch, match_name
        self.query_generator, self.sampler, self.read_features = query_generator, sampler, read_features
        self.query_weight = query_weight

    def positive_queries(
        self, match: Match, maps: Sequence[Tensor], truth: GroundTruth, number: int
    ) -> SupervisedQueries:
        """Make customized positive queries (section 3.3), one attention group; ``number`` names their losses."""
        assert self.query_generator is not None
        assignment = match.assignment.hard(LEAST_FRACTION)
        sample = self.sampler(assignment)
        priors = match.predictions.priors.boxes.detach().float().expand(len(truth.sizes), -1, -1)
        boxes = priors.gather(1, sample.index[..., None].expand(-1, -1, 4))
        normalized = normalize_boxes(boxes, truth.sizes)
        queries = self.query_generator(normalized, lambda: self.read_features(maps, boxes, sample.index))
        used = sample.mask.any(0, keepdim=True) if self.sampler.pad_with_negatives else sample.mask
        return SupervisedQueries(
            queries,
            assignment.sampled(sample),
            torch.where(used, 0, -1),
            match_name=f"{self.name}/queries",
            loss_name=f"{{}}_aux{number}",
            weight=self.query_weight,
        )


class Collaboration(nn.Module):
    """The auxiliary heads on a feature pyramid that is made from the encoder's output.

    Args:
        adapter: maps the memory's maps to the pyramid (the multi-scale adapter of the article).
        auxiliary_heads: the heads.
        weight: of the heads' losses (lambda_2).
    """

    def __init__(self, adapter: nn.Module, auxiliary_heads: Sequence[AuxiliaryHead], weight: float) -> None:
        super().__init__()
        self.adapter, self.auxiliary_heads, self.weight = adapter, nn.ModuleList(auxiliary_heads), weight

    def forward(
        self, memory: Tokens, truth: GroundTruth, progress: Progress
    ) -> tuple[StepOutput, list[SupervisedQueries]]:
        """Return the weighted losses and the matches of all heads, and their customized positive queries."""
        maps, losses, matches, queries = self.pyramid(memory), {}, {}, []
        for number, head in enumerate(self._heads):
            output = head.branch(maps, truth, progress)
            for term, loss in output.losses.items():
                unnumbered = "rpn" in term and term not in losses  # as in the original, which has one RPN at most
                losses[term if unnumbered else f"{term}{number}"] = loss * self.weight
            for name, match in output.matches.items():
                matches[f"{head.name}/{name}"] = replace(match, loss_factor=self.weight)
            if head.query_generator is not None:
                queries.append(head.positive_queries(output.matches[head.match_name], maps, truth, number))
        return StepOutput(losses, matches), queries

    def pyramid(self, memory: Tokens) -> list[Tensor]:
        """Return the maps that the heads read."""
        maps: list[Tensor] = self.adapter(memory.maps())
        return maps

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the heads, in order."""
        return tuple(head.name for head in self._heads)

    def predict(self, memory: Tokens, sizes: Tensor, number: int) -> Detections:
        """Return the detections of auxiliary head ``number``."""
        return self._heads[number].branch.predict(self.pyramid(memory), sizes)

    @property
    def _heads(self) -> list[AuxiliaryHead]:
        return cast("list[AuxiliaryHead]", list(self.auxiliary_heads))


class CoarserLevelAdapter(nn.Sequential):
    """Adapter of multi-scale encoders: adds one level by a 3x3 convolution of stride 2 of the coarsest (published)."""

    def __init__(self, channels: int) -> None:
        super().__init__(*_conv_norm(channels, 2))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        conv, norm = self
        return [*maps, norm(conv(maps[-1]))]


class SingleScaleAdapter(nn.Module):
    """Adapter of single-scale encoders (article, section 3.2; not in the published code).

    Finer levels are made by bilinear upsampling and a 3x3 convolution, coarser ones by 3x3 convolutions of stride 2,
    each from the level before. Every convolution has a group norm, as in ``CoarserLevelAdapter``.
    """

    def __init__(self, channels: int, finer: int = 2, coarser: int = 2) -> None:
        super().__init__()
        self.finer = nn.ModuleList([_conv_norm(channels, 1) for _ in range(finer)])
        self.coarser = nn.ModuleList([_conv_norm(channels, 2) for _ in range(coarser)])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        levels = list(maps)
        for conv in self.finer:
            levels.insert(0, conv(interpolate(levels[0], scale_factor=2.0, mode="bilinear")))
        for conv in self.coarser:
            levels.append(conv(levels[-1]))
        return levels


def _conv_norm(channels: int, stride: int) -> nn.Sequential:
    norm = nn.GroupNorm(min(32, max(1, channels // 4)), channels)
    return nn.Sequential(nn.Conv2d(channels, channels, 3, stride, 1), norm)


@dataclass(frozen=True)
class CellFeatures:
    """Reads features of a dense head's priors: the values of the cells that they belong to."""

    anchors_per_cell: int = 1

    def __call__(self, maps: Sequence[Tensor], boxes: Tensor, index: Tensor) -> Tensor:
        """Return (B,D,C) of maps (B,C,H_l,W_l) at prior indices (B,D)."""
        cells = torch.cat([level.flatten(2) for level in maps], 2).transpose(1, 2)
        return cells.gather(1, (index // self.anchors_per_cell)[..., None].expand(-1, -1, cells.shape[2]))


@dataclass(frozen=True)
class RegionFeatures:
    """Reads features of regions: RoIAlign, averaged over the bins."""

    align: RegionAlign

    def __call__(self, maps: Sequence[Tensor], boxes: Tensor, index: Tensor) -> Tensor:
        """Return (B,D,C) of maps (B,C,H_l,W_l) at boxes (B,D,4), xyxy pixels."""
        return self.align(maps, boxes).mean((2, 3)).unflatten(0, index.shape)
