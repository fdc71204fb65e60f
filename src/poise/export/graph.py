"""The part of a detector that is exported, as one graph."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from poise.detection_model import DetectionModel
from poise.detection_model.description import description_of
from poise.detectors.parts import (
    DenseNetwork,
    has_encoder,
    is_dense,
    is_query_detector,
    is_region_detector,
    is_two_stage,
    region_stage,
)
from poise.export import queries
from poise.export.deformable import DECOMPOSITIONS
from poise.export.metadata import ExportMetadata, Kind, Outputs, Precision
from poise.export.pooling import pool_by_windows
from poise.export.raw import recorded
from poise.export.regions import FromProposals, TwoStage
from poise.export.sampling import replaced, sample_by_grid
from poise.nn.transformer import layers as transformer_layers
from poise.postprocess import AnyPostProcess
from poise.structures import Predictions

PROPOSALS = 64  # of the example that Fast R-CNN is traced with
BATCH = 7  # of the example for any batch. With 2 the tracer takes it for a constant where 2 x channels is another size


class Decoded(nn.Module):
    """Map (B,3,H,W) normalized pixels to ``boxes`` (B,N,4) px, ``scores`` (B,N,C) and, if different, ``gate`` (B,N,C).

    ``gate`` are the scores to which the threshold is applied (``Predictions.threshold_scores``).
    """

    def __init__(self, network: DenseNetwork, gated: bool) -> None:
        super().__init__()
        self.backbone, self.neck, self.head, self.gated = network.backbone, network.neck, network.branch.head, gated

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        predictions = self.head(self.neck(self.backbone(pixels)))
        outputs = (predictions.boxes, predictions.scores())
        return (*outputs, predictions.threshold_scores()) if self.gated else outputs


class RawOutputs(nn.Module):
    """Map (B,3,H,W) normalized pixels to the outputs of the head's layers, (B,N,·) each, before decoding."""

    def __init__(self, network: DenseNetwork) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = network.backbone, network.neck, network.branch.head

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return tuple(recorded(self.head, self.neck(self.backbone(pixels)))[1])


class HalfPrecision(nn.Module):
    """A copy of a module with layers in fp16; heads concatenate their outputs in fp32 and decode boxes exactly."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = copy.deepcopy(part).half()

    def forward(self, pixels: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        return tuple(output.float() for output in self.part(pixels.half(), *more))


def kind_of(model: DetectionModel) -> Kind:
    """Return what the predictions of the model belong to.

    Raises:
        ValueError: a network of another form.
    """
    network = model.network
    if is_query_detector(network):
        return "queries"
    if region_stage(network) is not None:
        return "regions"
    if has_encoder(network):
        raise ValueError(
            f"'{model.name}' cannot be exported: its encoder reads the sizes of images before padding, which files of "
            "one-stage detectors do not get; it is a baseline for measurements of features"
        )
    if is_dense(network):
        return "dense"
    raise ValueError(f"the network of '{model.name}' is neither one-stage nor two-stage nor of the DETR family")


def postprocess_of(model: DetectionModel) -> AnyPostProcess:
    """Return the post-processing of the model's predictions."""
    network = model.network
    if is_query_detector(network):
        return network.postprocess
    stage = region_stage(network)
    return dense_network(model).branch.postprocess if stage is None else stage.postprocess


def dense_network(model: DetectionModel) -> DenseNetwork:
    """Return the network of a one-stage model.

    Raises:
        ValueError: a network of another form.
    """
    network = model.network
    if kind_of(model) != "dense" or not is_dense(network):
        raise ValueError(f"'{model.name}' is not a one-stage model")
    return network


@torch.no_grad()
def metadata_of(model: DetectionModel, outputs: Outputs, dynamic: bool, precision: Precision) -> ExportMetadata:
    """Return the metadata of the file to write; runs a dense model once."""
    kind, (height, width) = kind_of(model), fixed_size(model)
    levels: tuple[tuple[int, int], ...] = ()
    channels, inputs = 0, ["pixels", "sizes"]
    names: tuple[str, ...] = ("boxes", "scores", "labels") if outputs == "detections" else ("boxes", "scores")
    if kind == "dense":
        network = dense_network(model)
        maps = network.neck(network.backbone(torch.zeros(1, 3, height, width)))
        sample, flat = recorded(network.branch.head, maps)
        levels, channels = levels_of(sample, height, width), maps[0].shape[1]
        inputs = ["pixels", "size"] if outputs == "detections" and model.preprocess.keep_ratio else ["pixels"]
        if outputs == "raw":
            names = tuple(f"head_{number}" for number in range(len(flat)))
        elif outputs == "decoded" and not torch.equal(sample.threshold_scores(), sample.scores()):
            names = (*names, "gate")
    elif model.needs_proposals:
        inputs.append("proposals")
    return ExportMetadata(
        kind,
        description_of(model),
        model.preprocess,
        postprocess_of(model),
        levels,
        channels,
        outputs,
        tuple(inputs),
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
    """Return the module to trace; that of a dense detector without NMS, which some formats add to the graph."""
    inside, dynamic = metadata.outputs == "detections", metadata.size is None
    network = model.network
    if is_query_detector(network):
        return queries.Decoded(network, inside).eval()
    if is_two_stage(network):
        return TwoStage(network, inside, dynamic).eval()
    if is_region_detector(network):
        return FromProposals(network, inside).eval()
    if metadata.outputs == "raw":
        return RawOutputs(dense_network(model)).eval()
    return Decoded(dense_network(model), gated(model)).eval()


@torch.no_grad()
def gated(model: DetectionModel) -> bool:
    """Return whether the score threshold of a dense model is applied to other values than the scores."""
    network, (height, width) = dense_network(model), fixed_size(model)
    sample = network.branch.head(network.neck(network.backbone(torch.zeros(1, 3, height, width))))
    return not torch.equal(sample.threshold_scores(), sample.scores())


def traced_names(model: DetectionModel, metadata: ExportMetadata) -> list[str]:
    """Return the names of the outputs of :func:`part_of`."""
    if metadata.kind != "dense" or metadata.outputs != "detections":
        return list(metadata.names)
    return ["boxes", "scores", *(["gate"] if gated(model) else [])]


def traced_inputs(metadata: ExportMetadata) -> list[str]:
    """Return the names of the inputs of :func:`part_of`."""
    return ["pixels"] if metadata.kind == "dense" else list(metadata.inputs)


def examples_of(model: DetectionModel, metadata: ExportMetadata) -> dict[str, Tensor]:
    """Return inputs to trace with. With dynamic sizes, sides of 1 cell or equal sides would be traced as constants."""
    height, width = fixed_size(model)
    pixels = torch.zeros(1, 3, height, width)
    if metadata.size is None:
        coarsest = max([64, *(stride for stride, _ in metadata.levels)])
        pixels = torch.zeros(BATCH, 3, max(height, 3 * coarsest), max(width + coarsest, 4 * coarsest))
    sizes = torch.tensor([pixels.shape[2:]] * len(pixels), dtype=torch.float32)
    proposals = torch.tensor([0.0, 0.0, 32.0, 32.0]).expand(len(pixels), PROPOSALS, 4)
    values = {"pixels": pixels, "sizes": sizes, "proposals": proposals}
    return {name: values[name] for name in traced_inputs(metadata)}


def program_of(
    part: nn.Module, examples: Mapping[str, Tensor] | Tensor, dynamic: bool = False
) -> torch.export.ExportedProgram:
    """Trace a module.

    Deformable convolution and deformable attention are decomposed into standard operators. ``dynamic``: of any batch
    size, height and width. The number of proposals may always differ.
    """
    free = torch.export.Dim.DYNAMIC
    named = {"pixels": examples} if isinstance(examples, Tensor) else dict(examples)
    batch = {0: free} if dynamic else {}
    sides = {2: free, 3: free} if dynamic else {}
    dimensions = {"pixels": {**batch, **sides}, "sizes": batch, "proposals": {**batch, 1: free}}
    shapes = tuple(dimensions[name] or None for name in named)
    by_windows = replaced(functional, "adaptive_max_pool2d", pool_by_windows)
    with torch.no_grad(), replaced(transformer_layers, "sample_levels", sample_by_grid), by_windows:
        program = torch.export.export(part, tuple(named.values()), dynamic_shapes=shapes if any(shapes) else None)
    queries.without_stacks(program)
    decomposed: torch.export.ExportedProgram = program.run_decompositions(DECOMPOSITIONS)
    return decomposed
