"""The detector whose regions are given: backbone, neck, the stage that decides on them (Fast R-CNN)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from poise.structures import Batch, Detections, Progress, StepOutput


class RegionDetector(nn.Module):
    """As ``PyramidDetector``, with the proposals of the batch; ``generator`` is what the sampler draws from."""

    def __init__(
        self, backbone: nn.Module, neck: nn.Module, branch: nn.Module, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.generator = backbone, neck, generator
        self.branch: Any = branch

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Losses and matches.

        Raises:
            ValueError: the batch holds no proposals.
        """
        if batch.proposals is None:
            raise ValueError("this detector does not propose regions itself: give the batch proposals")
        maps = self.neck(self.backbone(batch.pixels))
        return self.branch(maps, batch.proposals, batch.truth, progress, self.generator)

    def predict(self, pixels: Tensor, sizes: Tensor, proposals: Detections) -> Detections:
        """Detections of (B,3,H,W) normalised pixels, read at the given regions."""
        return self.branch.predict(self.neck(self.backbone(pixels)), proposals, sizes)
