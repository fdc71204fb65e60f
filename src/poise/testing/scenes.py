"""Random ground truth and predictions, on which assigners and criteria are checked."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from poise.boxes import normalize_boxes
from poise.nn.layers import AnchorGrid, point_grid, square_anchors
from poise.structures import (
    DeltaPredictions,
    DistributionPredictions,
    GroundTruth,
    JointDeltaPredictions,
    Predictions,
    QualityPredictions,
    QueryPredictions,
    RefinedPredictions,
    RegionPredictions,
    map_tensors,
)

STRIDES = (8, 16, 32)
HEIGHT, WIDTH, CLASSES = 96, 128, 5

Scene = TypeVar("Scene", bound=Predictions | GroundTruth)


def random_boxes(count: int, generator: torch.Generator, smallest: float = 2.0) -> Tensor:
    """Return boxes (count,4) of mixed sizes inside the image."""
    limit = torch.tensor([WIDTH, HEIGHT])
    size = smallest + torch.rand(count, 2, generator=generator) ** 2 * (limit - smallest - 1)
    corner = torch.rand(count, 2, generator=generator) * (limit - size)
    return torch.cat((corner, corner + size), 1)


def truth_of(counts: list[int], seed: int, crowd: bool = False) -> GroundTruth:
    """Return the ground truth of a batch: one image with as many objects as each count."""
    generator = torch.Generator().manual_seed(seed)
    targets = []
    for count in counts:
        labels = torch.randint(CLASSES, (count,), generator=generator)
        target = {"boxes": random_boxes(count, generator), "labels": labels}
        if crowd:
            target["iscrowd"] = torch.rand(count, generator=generator) < 0.4
        targets.append(target)
    return GroundTruth.collate(targets, [(HEIGHT, WIDTH)] * len(counts))


def hard_truth(seed: int) -> GroundTruth:
    """Return one image of 40 tiny, huge, border, equal and overlapping objects, one of them between all priors."""
    generator = torch.Generator().manual_seed(seed)
    some = random_boxes(16, generator)
    corner = torch.rand(8, 2, generator=generator) * torch.tensor([WIDTH - 3.0, HEIGHT - 3.0])
    tiny = torch.cat((corner, corner + 0.5 + 2 * torch.rand(8, 2, generator=generator)), 1)
    whole = torch.tensor([[0.0, 0.0, WIDTH, HEIGHT], [0.0, 0.0, WIDTH, 9.3], [0.0, 0.0, 7.1, HEIGHT]])
    unseen = torch.tensor([[17.0, 17.0, 19.5, 19.5]])  # between the priors of every level
    shifted = some[:8] + torch.rand(8, 4, generator=generator)
    boxes = torch.cat((some, tiny, whole, unseen, shifted, some[:4]))
    labels = torch.randint(CLASSES, (len(boxes),), generator=generator)
    labels[28:36], labels[36:] = labels[:8], labels[:4]
    return GroundTruth.collate([{"boxes": boxes, "labels": labels}], [(HEIGHT, WIDTH)])


def maps_of(batch: int) -> list[Tensor]:
    """Return empty maps of all strides."""
    return [torch.zeros(batch, 1, HEIGHT // stride, WIDTH // stride) for stride in STRIDES]


def predictions_of(
    kind: type[Predictions], batch: int, seed: int, grid: AnchorGrid | None = None, *, bins: int = 9
) -> Predictions:
    """Return plausible predictions of a kind at every prior of a grid, by default one square anchor in each cell."""
    generator = torch.Generator().manual_seed(seed)
    priors = (grid or square_anchors(STRIDES, 4.0))(maps_of(batch))
    count = priors.boxes.shape[1]
    logits = torch.randn(batch, count, CLASSES, generator=generator) * 2 - 2
    noise = torch.rand(batch, count, 4, generator=generator) * priors.strides[:, None] * 3
    center = priors.centers.repeat(1, 1, 2)
    boxes = center + noise * torch.tensor([-1.0, -1.0, 1.0, 1.0])
    extra: dict[str, Tensor] = {}
    if issubclass(kind, QualityPredictions):
        extra["quality"] = torch.randn(batch, count, generator=generator)
    if issubclass(kind, DistributionPredictions):
        extra["bins"] = torch.randn(batch, count, 4, bins, generator=generator)
    if issubclass(kind, (DeltaPredictions, JointDeltaPredictions)):
        extra["deltas"] = torch.randn(batch, count, 4, generator=generator)
    if issubclass(kind, RefinedPredictions):
        extra["initial_boxes"] = boxes + torch.randn(batch, count, 4, generator=generator)
    if issubclass(kind, QueryPredictions):
        extra["normalized_boxes"] = normalize_boxes(boxes, torch.tensor([[HEIGHT, WIDTH]]).float().expand(batch, -1))
    if issubclass(kind, RegionPredictions):
        extra["background"] = torch.randn(batch, count, generator=generator)
        extra["deltas"] = torch.randn(batch, count, CLASSES, 4, generator=generator)
    return kind(priors, logits, boxes, **extra)


def image_of(value: Scene, i: int) -> Scene:
    """Return image ``i`` of a batch."""
    batch = value.boxes.shape[0]
    return map_tensors(value, lambda t: t[i : i + 1] if t.ndim > 1 and t.shape[0] == batch else t)


POINTS = point_grid(STRIDES, 0.5)
