"""The part of a detector that an exported file holds, as one graph of tensors."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from poise.detectors import DetectionModel
from poise.export.deformable import DECOMPOSITIONS
from poise.export.metadata import ExportMetadata, Outputs, Precision, describe
from poise.export.raw import recorded
from poise.structures import Predictions


class Decoded(nn.Module):
    """(B,3,H,W) normalized pixels to ``boxes`` (B,N,4) px, ``scores`` (B,N,C) and, where it differs, ``gate`` (B,N,C).

    ``gate`` is what the score threshold reads.
    """

    def __init__(self, network: Any, gated: bool) -> None:
        super().__init__()
        self.backbone, self.neck, self.head, self.gated = network.backbone, network.neck, network.branch.head, gated

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        predictions = self.head(self.neck(self.backbone(pixels)))
        outputs = (predictions.boxes, predictions.scores())
        return (*outputs, predictions.threshold_scores()) if self.gated else outputs


class Raw(nn.Module):
    """(B,3,H,W) normalized pixels to what the head's layers give, (B,N,·) each, before any decoding."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = network.backbone, network.neck, network.branch.head

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return tuple(recorded(self.head, self.neck(self.backbone(pixels)))[1])


class HalfPrecision(nn.Module):
    """A copy of a part with layers in fp16; heads join their outputs in fp32, so boxes are decoded exactly."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = copy.deepcopy(part).half()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return tuple(output.float() for output in self.part(pixels.half()))


def one_stage(model: DetectionModel) -> Any:
    """The model's network.

    Raises:
        ValueError: not a one-stage model.
    """
    network: Any = model.network
    if model.needs_proposals:
        raise ValueError(
            f"'{model.name}' decides on proposals, for which a file has no input; export a one-stage model "
            "(atss_r18_fpn)"
        )
    branch = getattr(network, "branch", None)
    if not (hasattr(network, "neck") and hasattr(branch, "head") and hasattr(branch, "postprocess")):
        raise ValueError(f"'{model.name}' is no one-stage model; only those can be exported")
    return network


@torch.no_grad()
def metadata_of(model: DetectionModel, outputs: Outputs, dynamic: bool, precision: Precision) -> ExportMetadata:
    """What the file will say of itself, found by running the model once."""
    network = one_stage(model)
    height, width = fixed_size(model)
    maps = network.neck(network.backbone(torch.zeros(1, 3, height, width)))
    sample, flat = recorded(network.branch.head, maps)
    if outputs == "raw":
        names = tuple(f"head_{number}" for number in range(len(flat)))
    elif outputs == "detections":
        names = ("boxes", "scores", "labels")
    else:
        names = ("boxes", "scores", *(() if torch.equal(sample.threshold_scores(), sample.scores()) else ("gate",)))
    return ExportMetadata(
        describe(model),
        model.preprocess,
        network.branch.postprocess,
        levels_of(sample, height, width),
        maps[0].shape[1],
        outputs,
        names,
        None if dynamic else (height, width),
        precision,
    )


def levels_of(predictions: Predictions, height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Stride and predictions a cell of each level."""
    priors, start, levels = predictions.priors, 0, []
    for size in priors.level_sizes:
        stride = int(priors.strides[start])
        levels.append((stride, size // (-(-height // stride) * -(-width // stride))))
        start += size
    return tuple(levels)


def fixed_size(model: DetectionModel) -> tuple[int, int]:
    """Height and width of an input that holds every image as the model's preprocessing leaves it."""
    prepare = model.preprocess
    sides = (prepare.long, prepare.long) if prepare.keep_ratio else (prepare.short, prepare.long)
    return prepare.padded_size(*sides)


def part_of(model: DetectionModel, metadata: ExportMetadata) -> nn.Module:
    """What is to be traced: NMS is never part of it, formats that can hold it add it to the graph."""
    if metadata.outputs == "raw":
        return Raw(model.network).eval()
    return Decoded(model.network, gated(model)).eval()


@torch.no_grad()
def gated(model: DetectionModel) -> bool:
    """Whether the score threshold reads something else than the scores."""
    network, (height, width) = one_stage(model), fixed_size(model)
    sample = network.branch.head(network.neck(network.backbone(torch.zeros(1, 3, height, width))))
    return not torch.equal(sample.threshold_scores(), sample.scores())


def traced_names(model: DetectionModel, metadata: ExportMetadata) -> list[str]:
    """Names of the outputs of :func:`part_of`."""
    if metadata.outputs != "detections":
        return list(metadata.names)
    return ["boxes", "scores", *(["gate"] if gated(model) else [])]


def example_of(model: DetectionModel, metadata: ExportMetadata) -> Tensor:
    """Pixels to trace with. Sides of 1 cell and equal sides would be taken for constants where sizes are free."""
    height, width = fixed_size(model)
    if metadata.size is not None:
        return torch.zeros(1, 3, height, width)
    coarsest = max(stride for stride, _ in metadata.levels)
    return torch.zeros(2, 3, max(height, 3 * coarsest), max(width + coarsest, 4 * coarsest))


def program_of(part: nn.Module, pixels: Tensor, dynamic: bool = False) -> torch.export.ExportedProgram:
    """The graph of a part of the model, deformable convolutions written out in plain operators."""
    free = torch.export.Dim.DYNAMIC
    shapes = ({0: free, 2: free, 3: free},) if dynamic else None
    with torch.no_grad():
        program = torch.export.export(part, (pixels,), dynamic_shapes=shapes)
    return program.run_decompositions(DECOMPOSITIONS)
