"""A detector that learns from a larger one beside it (NanoDet-Plus's assign guidance module).

While training, a second neck and a plain convolutional head read the same backbone. Their better predictions decide
which place answers to which object, for both heads. Inference uses neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from poise.branches import DenseBranch
from poise.structures import Batch, Detections, Match, Predictions, Progress, StepOutput, at


class Guide(nn.Module):
    """A head that reads, level by level, the detector's pyramid beside that of a neck of its own."""

    def __init__(self, neck: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.neck, self.head = neck, head

    def forward(self, maps: Sequence[Tensor], pyramid: Sequence[Tensor]) -> Predictions:
        own = self.neck(maps)
        return self.head([torch.cat(pair, 1) for pair in zip(pyramid, own, strict=True)])


class GuidedDetector(nn.Module):
    """Backbone, neck and branch, where the branch's assigner is shown the predictions of a training-only guide.

    Args:
        branch: its criterion serves both heads.
        guide: ``guide(maps, pyramid)`` gives predictions at the places of the branch's head.
        detached: whether the guide's gradient stops before backbone and neck; a bool or ``Phased``.
    """

    def __init__(
        self, backbone: nn.Module, neck: nn.Module, branch: DenseBranch, guide: nn.Module, detached: Any
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.branch, self.guide = backbone, neck, branch, guide
        self.detached = detached

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        maps = self.backbone(batch.pixels)
        pyramid = self.neck(maps)
        predictions = self.branch.head(pyramid)
        if at(self.detached, progress):
            maps, pyramid = ([level.detach() for level in levels] for levels in (maps, pyramid))
        guidance = self.guide(maps, pyramid)
        with torch.autocast(batch.pixels.device.type, enabled=False):
            assignment = at(self.branch.assigner, progress)(guidance, batch.truth)
            criterion = at(self.branch.criterion, progress)
            losses = criterion(predictions, assignment, batch.truth)
            guide_losses = criterion(guidance, assignment, batch.truth)
        losses.update({f"aux_{name}": loss for name, loss in guide_losses.items()})
        said = {"dense": predictions, "guide": guidance}
        return StepOutput(losses, {name: Match(it, assignment, criterion=criterion) for name, it in said.items()})

    def predict(self, pixels: Tensor, sizes: Tensor) -> Detections:
        """Detections of (B,3,H,W) normalized pixels whose images are ``sizes`` (B,2) high and wide before padding."""
        return self.branch.predict(self.neck(self.backbone(pixels)), sizes)
