"""Detectors on a feature pyramid: one-stage (dense) ones, and those of NanoDet-Plus with an assign guidance module.

The assign guidance module (AGM) exists in training only: a second neck and a plain convolutional head on the same
backbone. The assigner reads its predictions, which are better than those of the light head, and both heads are trained
with that assignment.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poise.postprocess import PostProcess
from poise.protocols import Assigner, Backbone, Branch, Criterion, Head, LossFunction, Neck
from poise.structures import (
    Batch,
    Detections,
    GroundTruth,
    Match,
    Predictions,
    Progress,
    StepOutput,
    SwitchAtEpoch,
    value_at,
    values_at,
)


class DenseBranch(nn.Module):
    """A head, the assigner of its priors, the criterion, and the post-processing.

    Args:
        head: from pyramid maps to ``Predictions``.
        assigner: ``(predictions, truth) -> Assignment`` or ``PairWeights``, or ``SwitchAtEpoch`` of two of them.
        criterion: ``(predictions, assignment, truth) -> losses``, or ``SwitchAtEpoch`` of two of them.
        postprocess: ``(predictions, sizes) -> Detections``.
        hard_criterion: criterion for an ``Assignment``, if ``criterion`` takes ``PairWeights``; for use with another
            assigner.
        initial_criterion: criterion of the initial boxes of a head that predicts two boxes, for use with the criterion
            of another assigner.
    """

    def __init__(
        self,
        head: Head,
        assigner: Assigner | SwitchAtEpoch[Assigner],
        criterion: Criterion | SwitchAtEpoch[Criterion],
        postprocess: PostProcess,
        *,
        hard_criterion: Criterion | SwitchAtEpoch[Criterion] | None = None,
        initial_criterion: LossFunction | None = None,
    ) -> None:
        super().__init__()
        self.head = head
        self.assigner = assigner
        self.criterion = criterion
        self.postprocess = postprocess
        self.hard_criterion = criterion if hard_criterion is None else hard_criterion
        self.initial_criterion = initial_criterion

    def forward(
        self, maps: Sequence[Tensor], truth: GroundTruth, progress: Progress, guidance: Predictions | None = None
    ) -> StepOutput:
        """Return losses and matches, computed in float32 outside autocast.

        Args:
            maps: pyramid maps (B,C,H_l,W_l).
            truth: objects of the batch.
            progress: steps and epochs done.
            guidance: predictions of an assign guidance module at the same priors. The assigner reads them instead of
                the head's, and they get the same losses, named ``aux_...``. An assignment that carries gradient trains
                the predictions that it was computed from, so that head and guide then have one each.
        """
        predictions = self.head(maps)
        assigner, criterion = values_at(progress, self.assigner, self.criterion)
        with torch.autocast(truth.boxes.device.type, enabled=False):
            guided = assignment = assigner(predictions if guidance is None else guidance, truth)
            if guidance is not None and guided.carries_gradient:
                assignment = assigner(predictions, truth)
            losses = criterion(predictions, assignment, truth)
            own = assigner if guidance is None or guided.carries_gradient else None
            matches = {"dense": Match(predictions, assignment, criterion=criterion, assigner=own)}
            if guidance is not None:
                guide_losses = criterion(guidance, guided, truth)
                losses.update({f"aux_{name}": loss for name, loss in guide_losses.items()})
                matches["guide"] = Match(guidance, guided, criterion=criterion, assigner=assigner)
        return StepOutput(losses, matches)

    def predict(self, maps: Sequence[Tensor], sizes: Tensor) -> Detections:
        """Return the detections of pyramid maps; ``sizes`` (B,2) are heights and widths of the images."""
        return self.postprocess(self.head(maps), sizes)

    def propose(self, maps: Sequence[Tensor], sizes: Tensor) -> Detections:
        """Return the detections: a one-stage branch has no other proposals."""
        return self.predict(maps, sizes)


class PyramidDetector(nn.Module):
    """Backbone, neck and one branch (dense, or two-stage).

    ``forward`` returns losses and ``predict`` detections, both in training mode and in evaluation mode.
    """

    needs_proposals = False

    def __init__(self, backbone: Backbone, neck: Neck, branch: Branch) -> None:
        super().__init__()
        self.backbone, self.neck, self.branch = backbone, neck, branch

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return losses and matches of a batch."""
        return self.branch(self.neck(self.backbone(batch.pixels)), batch.truth, progress)

    def propose(self, pixels: Tensor, sizes: Tensor) -> Detections:
        """Return the proposals of the first stage, or the detections of a one-stage branch.

        Arguments as of ``predict``.
        """
        return self.branch.propose(self.neck(self.backbone(pixels)), sizes)

    def predict(self, pixels: Tensor, sizes: Tensor) -> Detections:
        """Return the detections of normalized pixels.

        Args:
            pixels: (B,3,H,W).
            sizes: (B,2) height and width of each image before padding.
        """
        return self.branch.predict(self.neck(self.backbone(pixels)), sizes)


class AssignGuidanceModule(nn.Module):
    """A neck of its own, and a head that reads the detector's pyramid concatenated with that neck's, level by level."""

    def __init__(self, neck: Neck, head: Head) -> None:
        super().__init__()
        self.neck, self.head = neck, head

    def forward(self, maps: list[Tensor], pyramid: list[Tensor]) -> Predictions:
        """Return the predictions that guide the assigner.

        Args:
            maps: backbone maps, one a level.
            pyramid: maps of the detector's neck.
        """
        return self.head([torch.cat(pair, 1) for pair in zip(pyramid, self.neck(maps), strict=True)])


class GuidedDetector(nn.Module):
    """Backbone, neck and a dense branch whose assigner reads the predictions of an assign guidance module.

    Args:
        branch: its criterion is used for both heads.
        guide: ``guide(maps, pyramid)`` returns predictions at the priors of the branch's head.
        detached: whether gradients of the guide stop before backbone and neck; a bool or ``SwitchAtEpoch``.
    """

    needs_proposals = False

    def __init__(
        self,
        backbone: Backbone,
        neck: Neck,
        branch: DenseBranch,
        guide: AssignGuidanceModule,
        *,
        detached: bool | SwitchAtEpoch[bool],
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.branch, self.guide = backbone, neck, branch, guide
        self.detached = detached

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return losses and matches (``"dense"`` and ``"guide"``) of a batch."""
        maps = self.backbone(batch.pixels)
        pyramid = self.neck(maps)
        guided = maps, pyramid
        if value_at(self.detached, progress):
            guided = [level.detach() for level in maps], [level.detach() for level in pyramid]
        return self.branch(pyramid, batch.truth, progress, self.guide(*guided))

    def predict(self, pixels: Tensor, sizes: Tensor) -> Detections:
        """Return the detections of the branch, without the guide; arguments as of ``PyramidDetector.predict``."""
        return self.branch.predict(self.neck(self.backbone(pixels)), sizes)
