"""The detector with proposals as input: backbone, neck and region head (Fast R-CNN: Girshick 2015)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from poise.boxes import clip
from poise.branches.region import RegionStage, only_usable
from poise.detection_model import MissingProposals
from poise.protocols import Backbone, Neck
from poise.structures import Batch, Detections, Progress, StepOutput


class RegionDetector(nn.Module):
    """``PyramidDetector`` with proposals as input; the sampler draws random numbers from ``generator``."""

    needs_proposals = True

    def __init__(
        self, backbone: Backbone, neck: Neck, branch: RegionStage, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.branch, self.generator = backbone, neck, branch, generator

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return losses and matches of a batch with proposals.

        Raises:
            MissingProposals: the batch has none.
        """
        if batch.proposals is None:
            raise MissingProposals
        maps, proposals = self.neck(self.backbone(batch.pixels)), clipped(batch.proposals, batch.truth.sizes)
        return self.branch(maps, proposals, batch.truth, progress, self.generator)

    def predict(self, pixels: Tensor, sizes: Tensor, proposals: Detections | None = None) -> Detections:
        """Return the detections of normalized pixels (B,3,H,W) from proposals.

        Raises:
            MissingProposals: there are none.
        """
        if proposals is None:
            raise MissingProposals
        return self.branch.predict(self.neck(self.backbone(pixels)), clipped(proposals, sizes), sizes)


def clipped(proposals: Detections, sizes: Tensor) -> Detections:
    """Return proposals as a first stage returns them: finite, and clipped to the images."""
    finite = only_usable(proposals)
    return replace(finite, boxes=clip(finite.boxes, sizes))
