"""Plan of an export, the input of the writers of all formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.detection_model import DetectionModel
from poise.export.graph import HalfPrecision, examples_of, part_of, program_of, traced_names
from poise.export.metadata import ExportMetadata


@dataclass(frozen=True)
class Plan:
    """A model in evaluation mode, the metadata of its file, and inputs for int8 calibration."""

    model: DetectionModel
    metadata: ExportMetadata
    calibration: Sequence[Mapping[str, Tensor]]  # by name; pixels (1,3,H,W), of the file's size if it is fixed

    @property
    def dynamic(self) -> bool:
        return self.metadata.size is None

    def examples(self) -> dict[str, Tensor]:
        """Return inputs to trace with, by name."""
        return examples_of(self.model, self.metadata)

    def program(self, half: bool = False) -> torch.export.ExportedProgram:
        """Return the traced program, without threshold and NMS. ``half``: computed in fp16."""
        part = part_of(self.model, self.metadata)
        return program_of(HalfPrecision(part).eval() if half else part, self.examples(), self.dynamic)

    def traced_names(self) -> list[str]:
        """Return the names of the outputs of :meth:`program`."""
        return traced_names(self.model, self.metadata)
