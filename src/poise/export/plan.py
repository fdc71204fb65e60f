"""What is to be exported, as the writers of the formats read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.detectors import DetectionModel
from poise.export.graph import HalfPrecision, example_of, part_of, program_of, traced_names
from poise.export.metadata import ExportMetadata


@dataclass(frozen=True)
class Plan:
    """A model in evaluation mode, what its file will say of itself, and prepared pixels for the calibration of int8."""

    model: DetectionModel
    metadata: ExportMetadata
    calibration: Sequence[Tensor]  # (1,3,H,W) each, of the file's size where that is fixed

    @property
    def dynamic(self) -> bool:
        return self.metadata.size is None

    def example(self) -> Tensor:
        return example_of(self.model, self.metadata)

    def program(self, half: bool = False) -> torch.export.ExportedProgram:
        """What the file holds; thresholding and NMS are added by the formats that can. ``half``: computed in fp16."""
        part = part_of(self.model, self.metadata)
        return program_of(HalfPrecision(part).eval() if half else part, self.example(), self.dynamic)

    def traced_names(self) -> list[str]:
        """Names of the outputs of :meth:`program`."""
        return traced_names(self.model, self.metadata)
