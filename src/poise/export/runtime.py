"""Load exported files as models with the same methods."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from poise.boxes import clip
from poise.detection_model import DetectionModel
from poise.export.formats import FORMATS, format_of
from poise.export.metadata import ExportMetadata
from poise.export.packages import require_packages
from poise.postprocess import classwise_nms
from poise.protocols import Head
from poise.structures import Batch, Detections, Predictions, Priors, Progress, StepOutput

Session = Callable[[Mapping[str, Tensor]], list[Tensor]]
"""From the file's inputs by name, pixels of the file's size first, to its outputs."""


def is_exported(path: str | os.PathLike[str]) -> bool:
    """Return whether a path has the suffix of an exported file."""
    return format_of(Path(path)) is not None


def load_exported(path: str | os.PathLike[str], threads: int = 0) -> DetectionModel:
    """Load a file of :func:`poise.export.export_model` as a model that runs on the CPU with its runtime.

    Args:
        path: ``*.onnx``, ``*.xml`` (OpenVINO), ``*.param`` (ncnn) or ``*.pte`` (ExecuTorch).
        threads: number of threads of the runtime; 0: its default.

    Raises:
        FileNotFoundError: the file or one of its companions is missing.
        ValueError: the file was not written by poise.
        ImportError: the runtime is not installed.
    """
    path = Path(path)
    kind = format_of(path)
    if kind is None:
        raise ValueError(
            f"{path} does not have the suffix of an exported file ({', '.join(k.suffix for k in FORMATS.values())})"
        )
    for file in kind.files(path):
        if not file.is_file():
            if file == path:
                raise FileNotFoundError(f"no exported model at {file}")
            raise FileNotFoundError(
                f"{path.name} is incomplete without its file {file}: copy it to the same folder, or export the "
                "checkpoint again (poise export)"
            )
    require_packages(*kind.running)
    try:
        metadata, session = kind.module().open_file(path, threads)
    except ValueError as error:
        raise error if str(path) in str(error) else ValueError(f"{path}: {error}") from error
    network = ExportedNetwork(metadata, session)
    about = metadata.model
    model = DetectionModel(network, metadata.preprocess, about["name"], about["num_classes"], options=about["options"])
    model.set_classes(about["class_names"], about["category_ids"])
    model.class_map = dict(about.get("class_map", {}))
    return model.eval()


@dataclass(frozen=True)
class DecodedPredictions(Predictions):
    """Outputs of a file: ``logits`` are scores already."""

    gate: Tensor  # (B,N,C), to which the score threshold applies

    def threshold_scores(self) -> Tensor:
        return self.gate

    def scores(self) -> Tensor:
        return self.logits


class ExportedNetwork(nn.Module):
    """A network with ``predict``, which cannot be trained."""

    def __init__(self, metadata: ExportMetadata, session: Session) -> None:
        super().__init__()
        self.metadata, self.session = metadata, session
        self.where = nn.Parameter(torch.zeros(0), requires_grad=False)  # defines the device of the inputs
        self.head = _head(metadata) if metadata.outputs == "raw" else None

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        raise ValueError("an exported file cannot be trained: train its checkpoint")

    @property
    def needs_proposals(self) -> bool:
        """Whether the file takes proposals (Fast R-CNN)."""
        return "proposals" in self.metadata.inputs

    def predict(self, pixels: Tensor, sizes: Tensor, proposals: Detections | None = None) -> Detections:
        """Detect in (B,3,H,W) normalized pixels of images with ``sizes`` (B,2), height and width before padding."""
        device, pixels, sizes, metadata = pixels.device, self.padded(pixels.cpu()), sizes.cpu(), self.metadata
        if metadata.kind != "dense":
            found = self._of_regions_or_queries(pixels, sizes, proposals)
        elif metadata.outputs == "detections":
            found = self._suppressed(pixels, sizes)
        else:
            found = metadata.dense_postprocess(self.predictions(pixels), sizes)
        return Detections(*(value.to(device) for value in (found.boxes, found.scores, found.labels, found.valid)))

    def _of_regions_or_queries(self, pixels: Tensor, sizes: Tensor, proposals: Detections | None) -> Detections:
        more = {"sizes": sizes.float()}
        if proposals is not None:
            more["proposals"] = torch.where(proposals.valid[..., None], proposals.boxes, 0.0).cpu()
        found = self.outputs({"pixels": pixels, **more})
        if self.metadata.outputs != "detections":
            return self.metadata.selection.detections(found["scores"], found["boxes"], sizes)
        return Detections(found["boxes"], found["scores"], found["labels"], found["scores"] > 0)

    def predictions(self, pixels: Tensor) -> Predictions:
        """Return the predictions of every prior for pixels of the file's size; for dense files without NMS."""
        found = self.outputs({"pixels": pixels})
        height, width = pixels.shape[2:]
        if self.head is not None:
            shapes = self.metadata.level_shapes(height, width)
            from poise.export.raw import decoded

            return decoded(self.head, list(found.values()), self.metadata.channels, shapes)
        levels = self.metadata.level_sizes(height, width)
        priors = Priors(found["boxes"][:1], torch.ones(found["boxes"].shape[1]), levels)
        gate = found.get("gate", found["scores"])
        return DecodedPredictions(priors, found["scores"], found["boxes"], gate)

    def padded(self, pixels: Tensor) -> Tensor:
        """Pad the pixels with zeros at the bottom and right to the file's size, if it is fixed."""
        if self.metadata.size is None:
            return pixels
        height, width = self.metadata.size
        below, right = height - pixels.shape[2], width - pixels.shape[3]
        if below < 0 or right < 0:
            raise ValueError(
                f"the file takes images of up to {height} x {width} pixels, this one has {pixels.shape[2]} x "
                f"{pixels.shape[3]} after preprocessing; export it again with another image size or with --dynamic"
            )
        return functional.pad(pixels, (0, right, 0, below))

    def outputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the file on inputs (B,...), pixels of its size first, image by image if its size is fixed."""
        count = len(inputs["pixels"]) if self.metadata.size is None else 1
        parts = zip(*(value.split(count) for value in inputs.values()), strict=True)
        values = [self._run(dict(zip(inputs, part, strict=True))) for part in parts]
        return {
            name: torch.cat(column) for name, column in zip(self.metadata.names, zip(*values, strict=True), strict=True)
        }

    def _run(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        return self.session({name: value.contiguous() for name, value in inputs.items()})

    def _suppressed(self, pixels: Tensor, sizes: Tensor) -> Detections:
        """Run a file with NMS on each image; clip the detections and pad them to a batch."""
        images, takes_size = list[dict[str, Tensor]](), "size" in self.metadata.inputs
        for part, size in zip(pixels.split(1), sizes, strict=True):
            values = self._run({"pixels": part, **({"size": size.float()} if takes_size else {})})
            images.append(dict(zip(self.metadata.names, values, strict=True)))
        width = max(1, *(len(image["scores"]) for image in images))
        boxes, scores, labels = (
            torch.stack([functional.pad(image[name], shape(width - len(image["scores"]))) for image in images])
            for name, shape in (
                ("boxes", lambda n: (0, 0, 0, n)),
                ("scores", lambda n: (0, n)),
                ("labels", lambda n: (0, n)),
            )
        )
        border = self.metadata.dense_postprocess.clip_margin
        boxes = boxes if border is None else clip(boxes, sizes - border)
        return classwise_nms(boxes, scores, labels, scores > 0, threshold=1.0, max_detections=width)


def exported_network(model: DetectionModel) -> ExportedNetwork:
    """Return the network of a model that was loaded from an exported file."""
    network: object = model.network
    assert isinstance(network, ExportedNetwork)
    return network


def _head(metadata: ExportMetadata) -> Head:
    """Return the head that decodes raw outputs; files with other outputs need no code of the networks."""
    from poise.detectors.parts import is_dense
    from poise.models.files import build

    network = build(metadata.model).network
    assert is_dense(network)
    return network.branch.head
