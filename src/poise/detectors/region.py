"""The detector whose regions are given: backbone, neck, the stage that decides on them (Fast R-CNN)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from poise.boxes import clip
from poise.branches.region import only_finite
from poise.structures import Batch, Detections, Progress, StepOutput


class MissingProposals(ValueError):
    """A detector that decides on given regions was given none; the message says where they come from."""

    def __str__(self) -> str:
        return (
            "this model does not propose regions itself: it decides on those that it is given. Name a file of them "
            "(poise train … --data.proposals FILE, poise eval … --proposals FILE; poise eval OTHER_MODEL "
            "--save-proposals FILE writes one), in Python model(images, proposals=[boxes, …]), or take a model that "
            "proposes, such as faster_rcnn_r50_fpn"
        )


class RegionDetector(nn.Module):
    """As ``PyramidDetector``, with the proposals of the batch; ``generator`` is what the sampler draws from."""

    needs_proposals = True

    def __init__(
        self, backbone: nn.Module, neck: nn.Module, branch: nn.Module, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.generator = backbone, neck, generator
        self.branch: Any = branch

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Losses and matches.

        Raises:
            MissingProposals: the batch holds none.
        """
        if batch.proposals is None:
            raise MissingProposals
        maps, proposals = self.neck(self.backbone(batch.pixels)), clipped(batch.proposals, batch.truth.sizes)
        return self.branch(maps, proposals, batch.truth, progress, self.generator)

    def predict(self, pixels: Tensor, sizes: Tensor, proposals: Detections | None = None) -> Detections:
        """Detections of (B,3,H,W) normalized pixels, read at the given regions.

        Raises:
            MissingProposals: none are given.
        """
        if proposals is None:
            raise MissingProposals
        return self.branch.predict(self.neck(self.backbone(pixels)), clipped(proposals, sizes), sizes)


def clipped(proposals: Detections, sizes: Tensor) -> Detections:
    """Given regions as a first stage would have left them: finite, and inside the images."""
    finite = only_finite(proposals)
    return replace(finite, boxes=clip(finite.boxes, sizes))
