"""The one-stage branch: a head, an assigner and a criterion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from poise.postprocess import PostProcess
from poise.structures import Detections, GroundTruth, Match, Progress, StepOutput, at


class DenseBranch(nn.Module):
    """Predict everywhere, assign, weigh.

    ``assigner`` and ``criterion`` may be ``Phased``. Both run in fp32, outside autocast.
    """

    def __init__(self, head: nn.Module, assigner: Any, criterion: Any, postprocess: PostProcess) -> None:
        super().__init__()
        self.head = head
        self.assigner = assigner
        self.criterion = criterion
        self.postprocess = postprocess

    def forward(self, maps: Sequence[Tensor], truth: GroundTruth, progress: Progress) -> StepOutput:
        predictions = self.head(maps)
        with torch.autocast(truth.boxes.device.type, enabled=False):
            assignment = at(self.assigner, progress)(predictions, truth)
            criterion = at(self.criterion, progress)
            losses = criterion(predictions, assignment, truth)
        return StepOutput(losses, {"dense": Match(predictions, assignment, criterion=criterion)})

    def predict(self, maps: Sequence[Tensor], sizes: Tensor) -> Detections:
        return self.postprocess(self.head(maps), sizes)
