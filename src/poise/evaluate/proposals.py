"""A model's proposals as a file, in the form of COCO results, and how many of the objects they cover."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from poise.boxes import pairwise_iou
from poise.evaluate.results import coco_results
from poise.evaluate.run import evaluation_mode, inputs, to_original
from poise.storage import write_text_atomically
from poise.structures import Batch, Detections, GroundTruth

ANY_CLASS = 1  # the category that COCO's tools want of every result; proposals have none
THRESHOLDS = tuple(0.5 + 0.05 * i for i in range(10))


@dataclass
class Coverage:
    """How many objects have a proposal that overlaps them enough."""

    images: int = 0
    proposals: int = 0
    objects: int = 0
    covered: Tensor = field(default_factory=lambda: torch.zeros(len(THRESHOLDS)))  # at each of ``THRESHOLDS``

    def recall(self, threshold: float | None = None) -> float:
        """Part of the objects covered at the IoU nearest to ``threshold``, or the mean over 0.5, 0.55 … 0.95."""
        shares = self.covered / max(self.objects, 1)
        if threshold is None:
            return float(shares.mean())
        return float(shares[min(range(len(THRESHOLDS)), key=lambda i: abs(THRESHOLDS[i] - threshold))])

    def add(self, found: Detections, truth: GroundTruth) -> None:
        """Count a batch, all in pixels of the network's input."""
        best = (pairwise_iou(found.boxes, truth.boxes) * found.valid[..., None]).amax(1)[truth.valid]
        self.images += len(found.valid)
        self.proposals += int(found.valid.sum())
        self.objects += len(best)
        self.covered += (best >= torch.tensor(THRESHOLDS)[:, None]).sum(1)


def write_proposals(
    model: nn.Module,
    loader: Iterable[Batch],
    truth: Mapping[str, Any],
    path: str | os.PathLike[str],
    device: torch.device | str = "cpu",
) -> Coverage:
    """Write what a model's first stage proposes, or the boxes of a model without one, of every image of the loader.

    The file (COCO results, boxes in pixels of the original images, ``category_id`` 1 throughout) is written as the
    images come and appears whole or not at all. ``poise.data.with_proposals`` reads it.

    Args:
        model: a ``DetectionModel`` that finds its regions itself.
        loader: batches whose ``indices`` point into ``truth["images"]``.
        truth: COCO dictionary.
    """
    coverage = Coverage()
    with evaluation_mode(model), torch.inference_mode():
        results = _results(model, loader, truth, device, coverage)
        write_text_atomically(
            path, _list_of(json.dumps(one, separators=(",", ":"), allow_nan=False) for one in results)
        )
    return coverage


def _results(
    model: nn.Module, loader: Iterable[Batch], truth: Mapping[str, Any], device: torch.device | str, coverage: Coverage
) -> Iterator[dict[str, Any]]:
    network: Any = model.network
    propose = getattr(network, "propose", network.predict)
    for batch in loader:
        found: Detections = propose(*inputs(batch, device))
        found = Detections(found.boxes.float().cpu(), found.scores.float().cpu(), found.labels.cpu(), found.valid.cpu())
        coverage.add(found, batch.truth)
        for index, size, one in zip(batch.indices.tolist(), batch.truth.sizes, found.unpad(), strict=True):
            record = truth["images"][index]
            boxes = to_original(one["boxes"], size, record["height"], record["width"])
            classless = torch.zeros_like(one["labels"])
            for result in coco_results(record["id"], boxes, one["scores"], classless, [ANY_CLASS]):
                if min(result["bbox"][2:]) > 0:  # a box thinner than the thousandth of a pixel that is written
                    yield result


def _list_of(items: Iterable[str]) -> Iterator[str]:
    """A JSON list, an item a line."""
    start = "[\n"
    for item in items:
        yield start + item
        start = ",\n"
    yield "\n]\n" if start != "[\n" else "[]\n"
