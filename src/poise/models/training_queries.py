"""More supervision of queries in training than one-to-one matching of the queries of inference.

One-to-one matching supervises one query for each object. Group-DETR (Chen et al. 2023) and H-DETR (Jia et al. 2023)
keep it and add queries that only training decodes, in the same pass but masked from the queries of inference:
Group-DETR further groups of queries, each matched one to one; H-DETR one further set, matched one to many. MS-DETR
(Zhao et al. 2024) adds one-to-many losses of the queries of inference, from predictions of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import nn

from poise.assign import Hungarian, TopScores
from poise.detectors.mixed_supervision import MixedSupervision
from poise.detectors.query import OneToManyMatching
from poise.models.groups import DeformableOptions, TrainingQueryOptions
from poise.models.notation import parse_part
from poise.models.values import build_part
from poise.nn.transformer.layers import PredictionHead
from poise.nn.transformer.one_to_many import LocatedBranch, OutputBranch
from poise.nn.transformer.queries import GroupedQueries, SelectedQueries

ONE_TO_MANY: dict[str, Callable[..., MixedSupervision | TopScores]] = {
    "mixed_supervision": MixedSupervision,
    "top_scores": TopScores,
}
"""The value itself, and the assigner, which stands for the value with it and the published settings."""


@dataclass(frozen=True)
class TrainingQueries:
    """Numbers of queries in training, and how they are supervised.

    Args:
        queries: used at inference.
        options: Group-DETR has 11 ``query_groups``, H-DETR 1500 ``one_to_many_queries``.

    Raises:
        ValueError: both forms at once, or a number below its minimum.
    """

    queries: int
    options: TrainingQueryOptions

    def __post_init__(self) -> None:
        groups, one_to_many, repeats = self.groups, self.one_to_many, self.options.one_to_many_repeats
        if groups < 1 or one_to_many < 0 or repeats < 1:
            raise ValueError(
                f"query_groups={groups} and one_to_many_repeats={repeats} must be at least 1, "
                f"one_to_many_queries={one_to_many} at least 0"
            )
        if groups > 1 and one_to_many:
            raise ValueError(
                f"query_groups={groups} and one_to_many_queries={one_to_many} exclude each other: set one of them, or "
                "neither"
            )

    @cached_property
    def mixed_supervision(self) -> MixedSupervision | None:
        """One-to-many supervision of the queries of inference, or None.

        Raises:
            ValueError: the name or an option of ``one_to_many`` is wrong.
        """
        if not self.options.one_to_many:
            return None
        built = build_part(parse_part(self.options.one_to_many), "one_to_many", ONE_TO_MANY)
        return built if isinstance(built, MixedSupervision) else MixedSupervision(built)

    @property
    def cross_first(self) -> bool:
        """Whether the supervision needs the cross-attention of decoder layers before their self-attention."""
        return self.mixed_supervision is not None and self.mixed_supervision.cross_first

    def branches(
        self, transformer: DeformableOptions, heads: Sequence[PredictionHead], dropout: float
    ) -> Sequence[nn.Module]:
        """Return the decoder's branches for one-to-many supervision; ``heads`` are its prediction heads."""
        if self.mixed_supervision is None:
            return ()
        if not self.mixed_supervision.cross_first:
            return [OutputBranch(head) for head in heads]
        sizes = (transformer.channels, transformer.hidden, dropout)
        return [LocatedBranch(*sizes) for _ in range(transformer.decoder_layers)]

    @property
    def groups(self) -> int:
        """Number of groups of queries in training."""
        return self.options.query_groups

    @property
    def one_to_many(self) -> int:
        """Number of additional queries in training."""
        return self.options.one_to_many_queries

    @property
    def total(self) -> int:
        """Number of queries in training."""
        return self.queries * self.groups + self.one_to_many

    def selected(self, select: Callable[[int], SelectedQueries]) -> SelectedQueries:
        """Return the query selection of all queries; ``select(count)`` builds one, of which every group has its own."""
        if self.groups == 1:
            return select(self.queries + self.one_to_many)
        return GroupedQueries([select(self.queries) for _ in range(self.groups)])

    def detector_options(self, assigner: Hungarian) -> dict[str, Any]:
        """Return the arguments of ``QueryDetector`` that these queries need."""
        repeated = replace(assigner, repeats=self.options.one_to_many_repeats)
        matching = OneToManyMatching(repeated, self.options.one_to_many_weight) if self.one_to_many else None
        count = self.queries if self.groups > 1 or self.one_to_many else 0
        own = {"num_inference_queries": count, "query_groups": self.groups, "one_to_many": matching}
        return {**own, "mixed_supervision": self.mixed_supervision}
