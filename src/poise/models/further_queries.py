"""More queries in training than in inference: Group-DETR (Chen et al. 2023) and H-DETR (Jia et al. 2023).

One-to-one matching gives every object one query. Both papers leave it as it is and give the decoder more work beside
it, in the same pass and unseen by the queries of inference: Group-DETR several groups of queries, each matched one to
one; H-DETR one more set, in which every object is wanted by several queries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from poise.assign import Hungarian
from poise.detectors.query import Hybrid
from poise.nn.transformer.queries import GroupedQueries, SelectedQueries


@dataclass(frozen=True)
class FurtherQueries:
    """How many there are, and what they are taught.

    Args:
        queries: of inference.
        groups: of so many queries in training (Group-DETR: 11).
        many: further queries in training (H-DETR: 1500), where every object is wanted ``repeats`` times.
        weight: of their losses.

    Raises:
        ValueError: both at once, or numbers below their least.
    """

    queries: int
    groups: int = 1
    many: int = 0
    repeats: int = 6
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.groups < 1 or self.many < 0 or self.repeats < 1:
            raise ValueError(f"{self}: query_groups and many_repeats are at least 1, many_queries at least 0")
        if self.groups > 1 and self.many:
            raise ValueError(f"query_groups={self.groups} and many_queries={self.many}: one of them, or neither")

    @property
    def learned(self) -> int:
        """Queries that are learned where none is selected."""
        return self.queries * self.groups + self.many

    def selected(self, select: Callable[[int], SelectedQueries]) -> SelectedQueries:
        """What selects all of them, made by ``select`` for so many queries; every group selects for itself."""
        if self.groups == 1:
            return select(self.queries + self.many)
        return GroupedQueries([select(self.queries) for _ in range(self.groups)])

    def of_detector(self, assigner: Hungarian) -> dict[str, Any]:
        """What the detector is told."""
        hybrid = Hybrid(replace(assigner, repeats=self.repeats), self.weight) if self.many else None
        shown = self.queries if self.groups > 1 or self.many else 0
        return {"shown": shown, "groups": self.groups, "hybrid": hybrid}
