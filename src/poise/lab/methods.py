"""What is shown and compared: a model, or an assigner that judges a model's predictions, on images of a data set."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from poise.detectors import DetectionModel
from poise.detectors.model import check_targets
from poise.lab.explain import NothingToExplain, Stage, assigned_by, explanation_of, step
from poise.lab.scene import Photograph
from poise.models.assigners import swap_assigner
from poise.structures import Batch


@dataclass(frozen=True)
class Judged:
    """One image as one method sees it."""

    stages: dict[str, Stage]  # they hold this image alone, on the CPU
    factor: np.ndarray  # (4,): from boxes of the network's input to pixels of the image
    classes: np.ndarray  # (C,) int64: the data's class of each of the model's, -1 where it has none
    assumed: bool = False  # the model does not say its weights: they are 1 wherever it assigned anything


@dataclass(frozen=True)
class Method:
    """A model, and which of the data's classes each of its classes is (-1: none)."""

    name: str
    model: DetectionModel
    classes: tuple[int, ...]

    def compute_losses(self, photograph: Photograph, seed: int = 0) -> Judged:
        """What the model's losses weigh on an image; objects of classes that it does not know are left alone."""
        check_targets([self.target(photograph)], self.model.num_classes)
        batch = self.batch(photograph)
        output = step(self.model.network, batch, self.model.progress, seed)
        try:
            explanation, assumed = explanation_of(output, batch.truth, self.model.name), False
        except NothingToExplain:
            explanation, assumed = assigned_by(output, batch.truth), True
        height, width = explanation.truth.sizes[0].tolist()
        scale = photograph.image.shape[2] / width, photograph.image.shape[1] / height
        stages = {name: stage.cpu() for name, stage in explanation.stages.items()}
        return Judged(stages, np.array([*scale, *scale]), np.array(self.classes, dtype=np.int64), assumed)

    def target(self, photograph: Photograph) -> dict[str, torch.Tensor]:
        """The image's objects as the model's call takes them; those of classes that it does not know are crowds."""
        own = {theirs: mine for mine, theirs in enumerate(self.classes) if theirs >= 0}
        labels = [own.get(int(label), -1) for label in photograph.labels]
        left_alone = [bool(crowd) or label < 0 for crowd, label in zip(photograph.crowd, labels, strict=True)]
        return {
            "boxes": torch.from_numpy(photograph.boxes).float().reshape(-1, 4),
            "labels": torch.tensor(labels, dtype=torch.int64).clamp(min=0),
            "iscrowd": torch.tensor(left_alone, dtype=torch.bool),
        }

    def batch(self, photograph: Photograph) -> Batch:
        """The image with its objects as the network takes them, a batch of one."""
        pixels, sizes, factors = self.model.prepare([photograph.image])
        target = {name: value.to(pixels.device) for name, value in self.target(photograph).items()}
        return self.model.batch(pixels, [{**target, "boxes": target["boxes"] / factors[0]}], sizes)


def with_assigner(method: Method, assigner: str) -> Method:
    """The same model judged by another assigner: the same weights and so the same predictions.

    Raises:
        ValueError: an unknown name, or an assigner that does not fit; the message says why and what does.
    """
    model = copy.deepcopy(method.model)
    swap_assigner(model.network, assigner, model.name)
    return Method(assigner, model, method.classes)


def distinct(names: Sequence[str]) -> list[str]:
    """Names with a number where one comes again."""
    return [name if name not in names[:i] else f"{name} ({names[: i + 1].count(name)})" for i, name in enumerate(names)]
