"""More queries in training than at inference: Group-DETR (Chen et al. 2023) and H-DETR (Jia et al. 2023).

One-to-one matching supervises one query for each object. Both papers keep it and add queries that only training
decodes,
in the same pass but masked from the queries of inference: Group-DETR further groups of queries, each matched one to
one; H-DETR one further set, matched one to many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from poise.assign import Hungarian
from poise.detectors.query import OneToManyMatching
from poise.models.groups import TrainingQueryOptions
from poise.nn.transformer.queries import GroupedQueries, SelectedQueries


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
        return {"num_inference_queries": count, "query_groups": self.groups, "one_to_many": matching}
