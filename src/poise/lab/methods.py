"""Methods to show and compare: a model, or a model with another assigner, on images of a data set."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from poise.detection_model import DetectionModel, check_targets
from poise.lab.annotated_image import AnnotatedImage
from poise.lab.explain import NoLossWeights, Stage, explain_assignments, explain_output, run_step
from poise.models.assigners import swap_assigner
from poise.structures import Batch


@dataclass(frozen=True)
class ImageResult:
    """Stages of one method on one image."""

    stages: dict[str, Stage]  # a batch of this image alone, on the CPU
    scale: np.ndarray  # (4,): factor from boxes of the network's input to pixels of the image
    classes: np.ndarray  # (C,) int64: data set class of each class of the model, -1: none
    unit_weights: bool = False  # the criterion gives no weights: those of the assignment are used


@dataclass(frozen=True)
class Method:
    """A model, and the data set class of each of its classes (-1: none)."""

    name: str
    model: DetectionModel
    classes: tuple[int, ...]
    description: str = ""  # what differs from the other methods, where the name does not tell

    def explain(self, image: AnnotatedImage, seed: int = 0) -> ImageResult:
        """Loss weights of the model on an image; objects of classes that it does not have are crowds."""
        check_targets([self.target(image)], self.model.num_classes)
        batch = self.batch(image)
        output = run_step(self.model.network, batch, self.model.progress, seed)
        try:
            explanation, unit_weights = explain_output(output, batch.truth, self.model.name), False
        except NoLossWeights:
            explanation, unit_weights = explain_assignments(output, batch.truth), True
        height, width = explanation.truth.sizes[0].tolist()
        scale = image.pixels.shape[2] / width, image.pixels.shape[1] / height
        stages = {name: stage.cpu() for name, stage in explanation.stages.items()}
        return ImageResult(stages, np.array([*scale, *scale]), np.array(self.classes, dtype=np.int64), unit_weights)

    def target(self, image: AnnotatedImage) -> dict[str, torch.Tensor]:
        """The image's objects as the model's call takes them; objects of classes that it does not have are crowds."""
        own = {data_class: model_class for model_class, data_class in enumerate(self.classes) if data_class >= 0}
        labels = [own.get(int(label), -1) for label in image.labels]
        crowd = [bool(crowd) or label < 0 for crowd, label in zip(image.crowd, labels, strict=True)]
        return {
            "boxes": torch.from_numpy(image.boxes).float().reshape(-1, 4),
            "labels": torch.tensor(labels, dtype=torch.int64).clamp(min=0),
            "iscrowd": torch.tensor(crowd, dtype=torch.bool),
        }

    def batch(self, image: AnnotatedImage) -> Batch:
        """The image and its objects as a batch of one."""
        pixels, sizes, factors = self.model.prepare([image.pixels])
        target = {name: value.to(pixels.device) for name, value in self.target(image).items()}
        return self.model.batch(pixels, [{**target, "boxes": target["boxes"] / factors[0]}], sizes)


def with_assigner(method: Method, assigner: str) -> Method:
    """The same model with another assigner: same weights, hence same predictions.

    Raises:
        ValueError: an unknown name, or an assigner that does not fit; the message gives the reason and what fits.
    """
    model = copy.deepcopy(method.model)
    swap_assigner(model.network, assigner, model.name)
    return Method(assigner, model, method.classes, f"assigner {assigner} on the predictions of {method.name}")


def unique_names(names: Sequence[str]) -> list[str]:
    """Append a number to names that occur again."""
    return [name if name not in names[:i] else f"{name} ({names[: i + 1].count(name)})" for i, name in enumerate(names)]
