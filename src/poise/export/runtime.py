"""Load exported files as models with the same methods."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from poise.boxes import clip
from poise.detectors import DetectionModel
from poise.export.formats import FORMATS, format_of
from poise.export.metadata import ExportMetadata
from poise.export.packages import require_packages
from poise.export.raw import decoded
from poise.models.files import build
from poise.postprocess import classwise_nms
from poise.structures import Batch, Detections, Predictions, Priors, Progress, StepOutput

Session = Callable[[Tensor, "Tensor | None"], list[Tensor]]
"""From pixels (of the file's size) and perhaps the size (2,) before padding to the file's outputs."""


def is_exported(path: str | os.PathLike[str]) -> bool:
    """Whether a path has the suffix of an exported file."""
    return format_of(Path(path)) is not None


def load_exported(path: str | os.PathLike[str], threads: int = 0) -> DetectionModel:
    """A model whose network is a file of :func:`poise.export.export_model`, run on the CPU by its own runtime.

    Args:
        path: ``*.onnx``, ``*.xml`` (OpenVINO), ``*.param`` (ncnn) or ``*.pte`` (ExecuTorch).
        threads: that the runtime may use; 0: its own choice.

    Raises:
        FileNotFoundError: no such file, or one that belongs to it is missing.
        ValueError: not a file that poise wrote.
        ImportError: the runtime is not installed.
    """
    path = Path(path)
    kind = format_of(path)
    if kind is None:
        raise ValueError(f"{path} has the suffix of no export ({', '.join(k.suffix for k in FORMATS.values())})")
    for file in kind.files(path):
        if not file.is_file():
            what = "no exported model at" if file == path else f"{path.name} is incomplete without its file"
            raise FileNotFoundError(f"{what} {file}")
    require_packages(*kind.running)
    metadata, session = kind.module().open_file(path, threads)
    network = ExportedNetwork(metadata, session)
    about = metadata.model
    model = DetectionModel(network, metadata.preprocess, about["name"], about["num_classes"], about["options"])
    model.set_classes(about["class_names"], about["category_ids"])
    return model.eval()


@dataclass(frozen=True)
class DecodedPredictions(Predictions):
    """Outputs of a file: ``logits`` holds the scores themselves."""

    passing: Tensor  # (B,N,C), what the threshold reads

    def threshold_scores(self) -> Tensor:
        return self.passing

    def scores(self) -> Tensor:
        return self.logits


class ExportedNetwork(nn.Module):
    """``predict`` as any detector's; it cannot be trained."""

    def __init__(self, metadata: ExportMetadata, session: Session) -> None:
        super().__init__()
        self.metadata, self.session = metadata, session
        self.where = nn.Parameter(torch.zeros(0), requires_grad=False)  # says which device images go to
        self.head: Any = build(metadata.model).network.branch.head if metadata.outputs == "raw" else None  # type: ignore[union-attr]

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        raise ValueError("an exported file cannot be trained: train the checkpoint that it came from")

    def predict(self, pixels: Tensor, sizes: Tensor) -> Detections:
        """Detections of (B,3,H,W) normalized pixels whose images are ``sizes`` (B,2) high and wide before padding."""
        device, pixels, sizes = pixels.device, self.padded(pixels.cpu()), sizes.cpu()
        if self.metadata.outputs == "detections":
            found = self._suppressed(pixels, sizes)
        else:
            found = self.metadata.postprocess(self.predictions(pixels), sizes)
        return Detections(*(value.to(device) for value in (found.boxes, found.scores, found.labels, found.valid)))

    def predictions(self, pixels: Tensor) -> Predictions:
        """What the file says of every place, for pixels of its size; not of files with NMS inside."""
        found = self.outputs(pixels)
        height, width = pixels.shape[2:]
        if self.metadata.outputs == "raw":
            shapes = self.metadata.level_shapes(height, width)
            return decoded(self.head, list(found.values()), self.metadata.channels, shapes)
        levels = self.metadata.level_sizes(height, width)
        priors = Priors(found["boxes"][:1], torch.ones(found["boxes"].shape[1]), levels)
        passing = found.get("gate", found["scores"])
        return DecodedPredictions(priors, found["scores"], found["boxes"], passing)

    def padded(self, pixels: Tensor) -> Tensor:
        """The pixels with 0 at bottom and right up to the file's size, where that is fixed."""
        if self.metadata.size is None:
            return pixels
        height, width = self.metadata.size
        below, right = height - pixels.shape[2], width - pixels.shape[3]
        if below < 0 or right < 0:
            raise ValueError(
                f"the file takes images of up to {height} x {width} pixels, this one has {pixels.shape[2]} x "
                f"{pixels.shape[3]} after preparation; export again with another --size or with --dynamic"
            )
        return functional.pad(pixels, (0, right, 0, below))

    def outputs(self, pixels: Tensor, size: Tensor | None = None) -> dict[str, Tensor]:
        """What the file gives for pixels of its size, image by image where it takes one at a time.

        ``size`` (2,) is the height and width before padding, for files with NMS inside that ask for it.
        """
        parts = pixels.split(1) if self.metadata.size else [pixels]
        more = size.float() if size is not None and self.metadata.takes_size else None
        values = [self.session(part.contiguous(), more) for part in parts]
        return {
            name: torch.cat(column) for name, column in zip(self.metadata.names, zip(*values, strict=True), strict=True)
        }

    def _suppressed(self, pixels: Tensor, sizes: Tensor) -> Detections:
        """Files with NMS inside give one image's detections; here they are clipped and padded to a batch."""
        images = [self.outputs(part, size) for part, size in zip(pixels.split(1), sizes, strict=True)]
        most = max(1, *(len(image["scores"]) for image in images))
        boxes, scores, labels = (
            torch.stack([functional.pad(image[name], shape(most - len(image["scores"]))) for image in images])
            for name, shape in (
                ("boxes", lambda n: (0, 0, 0, n)),
                ("scores", lambda n: (0, n)),
                ("labels", lambda n: (0, n)),
            )
        )
        border = self.metadata.postprocess.clip_margin
        boxes = boxes if border is None else clip(boxes, sizes - border)
        return classwise_nms(boxes, scores, labels, scores > 0, 1.0, most)
