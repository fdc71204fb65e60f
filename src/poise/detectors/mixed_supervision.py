"""Mixed supervision of a DETR's queries (MS-DETR: Zhao et al. 2024, arXiv 2401.03989, section 3).

The queries of inference have one-to-one losses as usual and, in training, one-to-many losses of further predictions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from poise.assign import TopScores
from poise.criteria import SetCriterion

AFTER = ("cross_attention", "layer")
MATCH_NAME = "mixed_supervision"  # key of its match in ``StepOutput.matches``, of the last layer


@dataclass(frozen=True)
class MixedSupervision:
    """One-to-many supervision of the queries that are matched one to one. Losses are divided by the number of objects.

    Args:
        assigner: of the one-to-many predictions.
        after: where they come from. ``cross_attention`` (published): the queries after the cross-attention of a decoder
            layer, which then comes before its self-attention; ``layer``: the queries after the layer, by prediction
            heads of their own (figure 4a), which leaves the detector of inference as it is.
        class_weight, box_weight, giou_weight: of the losses (published; its one-to-one class loss has the weight 1).
    """

    assigner: TopScores = TopScores()
    after: str = "cross_attention"
    class_weight: float = 2.0
    box_weight: float = 5.0
    giou_weight: float = 2.0

    def __post_init__(self) -> None:
        if self.after not in AFTER:
            raise ValueError(f"after='{self.after}' of one_to_many: one of {', '.join(AFTER)}")
        if min(self.class_weight, self.box_weight, self.giou_weight) < 0:
            raise ValueError(f"{self}: weights cannot be negative")
        if type(self.assigner) is not TopScores:
            raise ValueError(
                f"one_to_many: assigner={self.assigner} does not assign queries one to many; give top_scores(topk=6)"
            )

    @property
    def cross_first(self) -> bool:
        """Whether the cross-attention of decoder layers comes before their self-attention."""
        return self.after == "cross_attention"

    def criterion(self, own: SetCriterion) -> SetCriterion:
        """Return the criterion of the one-to-many predictions, with the losses of the detector's ``own``."""
        return replace(
            own,
            class_weight=self.class_weight,
            box_weight=self.box_weight,
            giou_weight=self.giou_weight,
            per_object=True,
        )
