"""Exported files as models: the same calls, another runtime."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from poise.boxes import clip
from poise.detectors import DetectionModel
from poise.export.card import KEY, Card
from poise.postprocess import suppress
from poise.structures import Batch, Detections, Predictions, Priors, Progress, StepOutput


class Missing(ImportError):
    """A package that an export needs is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(f"{package} is not installed; pip install 'poise[export]' brings what exported files need")


def needed(*packages: str) -> None:
    """Refuse to begin without these packages."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise Missing(package)


def load_onnx(path: str | os.PathLike[str], threads: int = 0) -> DetectionModel:
    """A model whose network is an ONNX file of :func:`poise.export.export_onnx`, run on the CPU by ONNX Runtime.

    Args:
        path: the file.
        threads: that ONNX Runtime may use; 0: its own choice.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an ONNX file that poise wrote.
        ImportError: ONNX Runtime is not installed.
    """
    needed("onnxruntime")
    if not Path(path).is_file():
        raise FileNotFoundError(f"no exported model at {path}")
    network = OnnxNetwork(Path(path), threads)
    about = network.card.model
    model = DetectionModel(network, network.card.preprocess, about["name"], about["num_classes"], about["options"])
    model.set_classes(about["class_names"], about["category_ids"])
    return model.eval()


@dataclass(frozen=True)
class DecodedPredictions(Predictions):
    """Outputs of a file: ``logits`` holds the scores themselves."""

    passing: Tensor  # (B,N,C), what the threshold reads

    def gate(self) -> Tensor:
        return self.passing

    def scores(self) -> Tensor:
        return self.logits


class OnnxNetwork(nn.Module):
    """``predict`` as any detector's; it cannot be trained."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except _load_errors() as error:
            raise ValueError(f"{path} is not a usable ONNX file: {str(error).splitlines()[0]}") from error
        about = self.session.get_modelmeta().custom_metadata_map
        if KEY not in about:
            raise ValueError(f"{path} was not exported by poise: it does not say how its images are prepared")
        self.card = Card.from_text(about[KEY])
        self.shape: list[Any] = self.session.get_inputs()[0].shape  # numbers where fixed, else names
        self.asks_size = len(self.session.get_inputs()) > 1
        self.names = [output.name for output in self.session.get_outputs()]
        self.where = nn.Parameter(torch.zeros(0), requires_grad=False)  # says which device images go to

    @property
    def any_size(self) -> bool:
        """Whether images of every height and width are taken."""
        return any(isinstance(side, str) for side in self.shape[2:])

    @property
    def gated(self) -> bool:
        return "gate" in self.names

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        raise ValueError("an exported file cannot be trained: train the checkpoint that it came from")

    def predict(self, pixels: Tensor, sizes: Tensor) -> Detections:
        """Detections of (B,3,H,W) normalised pixels whose images are ``sizes`` (B,2) high and wide before padding."""
        pixels = self.padded(pixels)
        if self.card.nms_inside:
            return self._suppressed(pixels, sizes)
        found = self.outputs(pixels)
        levels = self.card.level_sizes(pixels.shape[2], pixels.shape[3])
        priors = Priors(found["boxes"][:1], torch.ones(found["boxes"].shape[1]), levels)
        passing = found.get("gate", found["scores"])
        return self.card.postprocess(DecodedPredictions(priors, found["scores"], found["boxes"], passing), sizes)

    def padded(self, pixels: Tensor) -> Tensor:
        """The pixels with 0 at bottom and right up to the file's size, where that is fixed."""
        if self.any_size:
            return pixels
        height, width = self.shape[2:]
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
        single = self.shape[0] == 1
        parts = pixels.split(1) if single else [pixels]
        more = {} if size is None or not self.asks_size else {"size": size.float().numpy()}
        values = [self.session.run(None, {"pixels": part.contiguous().numpy(), **more}) for part in parts]
        joined = [torch.cat([torch.from_numpy(one) for one in column]) for column in zip(*values, strict=True)]
        return dict(zip(self.names, joined, strict=True))

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
        return suppress(clip(boxes, sizes), scores, labels, scores > 0, 1.0, most)


def _load_errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidProtobuf,
        state.InvalidGraph,
        state.NoSuchFile,
        RuntimeError,
    )
