"""The detector of most methods: backbone, neck, one branch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from poise.structures import Batch, Detections, Progress, StepOutput


class PyramidDetector(nn.Module):
    """``forward`` gives losses and matches whatever the mode, ``predict`` detections whatever the mode."""

    def __init__(self, backbone: nn.Module, neck: nn.Module, branch: nn.Module) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck
        self.branch: Any = branch

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        return self.branch(self.neck(self.backbone(batch.pixels)), batch.truth, progress)

    def propose(self, pixels: Tensor, sizes: Tensor) -> Detections:
        """What the first stage proposes, or the detections of a branch without one; arguments as of ``predict``."""
        propose = getattr(self.branch, "propose", self.branch.predict)
        return propose(self.neck(self.backbone(pixels)), sizes)

    def predict(self, pixels: Tensor, sizes: Tensor) -> Detections:
        """Detections of (B,3,H,W) normalized pixels whose images are ``sizes`` (B,2) high and wide before padding."""
        return self.branch.predict(self.neck(self.backbone(pixels)), sizes)
