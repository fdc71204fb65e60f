"""The part of a detector that is exported, as one graph."""

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
    """Map (B,3,H,W) normalized pixels to ``boxes`` (B,N,4) px, ``scores`` (B,N,C) and, if different, ``gate`` (B,N,C).

    ``gate`` are the scores to which the threshold is applied (``Predictions.threshold_scores``).
    """

    def __init__(self, network: Any, gated: bool) -> None:
        super().__init__()
        self.backbone, self.neck, self.head, self.gated = network.backbone, network.neck, network.branch.head, gated

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        predictions = self.head(self.neck(self.backbone(pixels)))
        outputs = (predictions.boxes, predictions.scores())
        return (*outputs, predictions.threshold_scores()) if self.gated else outputs


class Raw(nn.Module):
    """Map (B,3,H,W) normalized pixels to the outputs of the head's layers, (B,N,·) each, before decoding."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = network.backbone, network.neck, network.branch.head

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return tuple(recorded(self.head, self.neck(self.backbone(pixels)))[1])


class HalfPrecision(nn.Module):
    """A copy of a module with layers in fp16; heads concatenate their outputs in fp32 and decode boxes exactly."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = copy.deepcopy(part).half()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return tuple(output.float() for output in self.part(pixels.half()))


def one_stage(model: DetectionModel) -> Any:
    """Return the network of a one-stage model.

    Raises:
        ValueError: not a one-stage model.
    """
    network: Any = model.network
    if model.needs_proposals:
        raise ValueError(
            f"'{model.name}' needs proposals, for which an exported file has no input; export a one-stage model "
            "(atss_r18_fpn)"
        )
    branch = getattr(network, "branch", None)
    if not (hasattr(network, "neck") and hasattr(branch, "head") and hasattr(branch, "postprocess")):
        raise ValueError(f"'{model.name}' is not a one-stage model; only those can be exported")
    return network


@torch.no_grad()
def metadata_of(model: DetectionModel, outputs: Outputs, dynamic: bool, precision: Precision) -> ExportMetadata:
    """Return the metadata of the file to write; runs the model once."""
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
    """Return stride and predictions per cell of each level."""
    priors, start, levels = predictions.priors, 0, []
    for size in priors.level_sizes:
        stride = int(priors.strides[start])
        levels.append((stride, size // (-(-height // stride) * -(-width // stride))))
        start += size
    return tuple(levels)


def fixed_size(model: DetectionModel) -> tuple[int, int]:
    """Return height and width of an input that fits every preprocessed image."""
    prepare = model.preprocess
    sides = (prepare.long, prepare.long) if prepare.keep_ratio else (prepare.short, prepare.long)
    return prepare.padded_size(*sides)


def part_of(model: DetectionModel, metadata: ExportMetadata) -> nn.Module:
    """Return the module to trace. It does not contain NMS, which some formats add to the graph."""
    if metadata.outputs == "raw":
        return Raw(model.network).eval()
    return Decoded(model.network, gated(model)).eval()


@torch.no_grad()
def gated(model: DetectionModel) -> bool:
    """Return whether the score threshold is applied to other values than the scores."""
    network, (height, width) = one_stage(model), fixed_size(model)
    sample = network.branch.head(network.neck(network.backbone(torch.zeros(1, 3, height, width))))
    return not torch.equal(sample.threshold_scores(), sample.scores())


def traced_names(model: DetectionModel, metadata: ExportMetadata) -> list[str]:
    """Return the names of the outputs of :func:`part_of`."""
    if metadata.outputs != "detections":
        return list(metadata.names)
    return ["boxes", "scores", *(["gate"] if gated(model) else [])]


def example_of(model: DetectionModel, metadata: ExportMetadata) -> Tensor:
    """Return pixels to trace with. With dynamic sizes, sides of 1 cell or equal sides would be traced as constants."""
    height, width = fixed_size(model)
    if metadata.size is not None:
        return torch.zeros(1, 3, height, width)
    coarsest = max(stride for stride, _ in metadata.levels)
    return torch.zeros(2, 3, max(height, 3 * coarsest), max(width + coarsest, 4 * coarsest))


def program_of(part: nn.Module, pixels: Tensor, dynamic: bool = False) -> torch.export.ExportedProgram:
    """Trace a module; deformable convolutions are decomposed into standard operators."""
    free = torch.export.Dim.DYNAMIC
    shapes = ({0: free, 2: free, 3: free},) if dynamic else None
    with torch.no_grad():
        program = torch.export.export(part, (pixels,), dynamic_shapes=shapes)
    return program.run_decompositions(DECOMPOSITIONS)
