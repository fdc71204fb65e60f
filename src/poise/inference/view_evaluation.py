"""Evaluate a model with test-time augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from poise.detection_model import DetectionModel
from poise.evaluate import Evaluation, evaluate
from poise.evaluate.run import Measure
from poise.inference.views import TestTimeAugmentation, detect_views
from poise.storage.coco import CocoTruth
from poise.structures import Batch, Detections


@dataclass(frozen=True)
class ViewedBatch(Batch):
    """A batch in its first size, with the same images in every size."""

    views: tuple[Batch, ...] = ()


def viewed_batches(loaders: Sequence[Iterable[Batch]]) -> Iterator[ViewedBatch]:
    """Batches of loaders of the same images in several sizes, together."""
    for views in zip(*loaders, strict=True):
        own = {f.name: getattr(views[0], f.name) for f in fields(Batch)}
        yield ViewedBatch(**own, views=views)


def evaluate_views(
    model: DetectionModel,
    settings: TestTimeAugmentation,
    loader_of: Callable[..., Iterable[Batch]],
    truth: CocoTruth,
    *,
    device: torch.device | str,
    measure: Measure | None = None,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """``poise.evaluate.evaluate`` of what is found in several views; ``loader_of`` makes the loader of one size.

    Args:
        loader_of: ``(preprocess, alike_under=…) -> loader``, see ``poise.data.evaluation_loader``.
        progress: called with the number of images after each batch.

    Raises:
        ValueError: the model is given its regions, which lie on one size.
    """
    if model.needs_proposals:
        raise ValueError(f"'{model.name}' is given its regions, which have one size: evaluate it without tta")

    def predict(batch: Any) -> Detections:
        views = [(one.pixels.to(device), one.truth.sizes.to(device)) for one in batch.views]
        return detect_views(model.network, views, settings)

    sizes = settings.sizes(model.preprocess)
    batches = viewed_batches([loader_of(size, alike_under=sizes) for size in sizes])
    return evaluate(model, batches, truth, device=device, measure=measure, predict=predict, progress=progress)
