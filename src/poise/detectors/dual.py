"""Consistent dual assignments (YOLOv10: Wang et al. 2024, section 3.1): a one-to-one branch for detection without NMS.

A second head of the same structure is trained beside the first, with one prior for each object. It alone detects, and
since it learns to score one prior of an object high and the others low, no NMS follows. The one-to-many branch gives
backbone and neck their gradient; the one-to-one branch reads detached maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from poise.detectors.dense import DenseBranch
from poise.structures import Detections, GroundTruth, Predictions, Progress, StepOutput


class DualBranch(DenseBranch):
    """A dense branch, and a one-to-one branch that alone detects.

    Args:
        one_to_many: its head, assigner and criteria become those of this branch.
        one_to_one: a branch of the same structure, whose assigner assigns one prior to an object at most. Its
            post-processing is that of the detector.
        start, end: weight of the one-to-many losses at the start and at the end of training, between which it changes
            linearly with the fraction of the training that is done. The one-to-one losses have the rest to 1.
    """

    def __init__(self, one_to_many: DenseBranch, one_to_one: DenseBranch, start: float, end: float) -> None:
        super().__init__(
            one_to_many.head,
            one_to_many.assigner,
            one_to_many.criterion,
            one_to_one.postprocess,
            hard_criterion=one_to_many.hard_criterion,
            initial_criterion=one_to_many.initial_criterion,
        )
        self.one_to_one, self.start, self.end = one_to_one, start, end

    def forward(
        self, maps: Sequence[Tensor], truth: GroundTruth, progress: Progress, guidance: Predictions | None = None
    ) -> StepOutput:
        """Return the losses and matches of both branches; the names of the second's begin with ``one_to_one``.

        Arguments as of ``DenseBranch``; ``guidance`` is for the one-to-many branch.
        """
        weight = self.weight_at(progress)
        many = super().forward(maps, truth, progress, guidance)
        one = self.one_to_one([level.detach() for level in maps], truth, progress)
        losses = {name: weight * loss for name, loss in many.losses.items()}
        losses |= {f"one_to_one_{name}": (1 - weight) * loss for name, loss in one.losses.items()}
        matches = {name: replace(match, loss_factor=weight) for name, match in many.matches.items()}
        matches["one_to_one"] = replace(one.matches["dense"], loss_factor=1 - weight)
        return StepOutput(losses, matches)

    def weight_at(self, progress: Progress) -> float:
        """Return the weight of the one-to-many losses."""
        return self.start + (self.end - self.start) * progress.fraction

    def predict(self, maps: Sequence[Tensor], sizes: Tensor) -> Detections:
        """Return the detections of the one-to-one branch; the one-to-many branch is not computed."""
        return self.postprocess(self.one_to_one.head(maps), sizes)
