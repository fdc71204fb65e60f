"""Proposals of a model as a file of COCO results, and their recall."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from poise.boxes import pairwise_iou
from poise.detection_model import DetectionModel
from poise.detectors.parts import proposer
from poise.evaluate.results import coco_results
from poise.evaluate.run import evaluation_mode, inputs
from poise.preprocess import to_original
from poise.storage import write_text_atomically
from poise.storage.coco import CocoDetection, CocoTruth
from poise.structures import Batch, Detections, GroundTruth, map_tensors

ANY_CLASS = 1  # COCO tools require a category for every result; proposals have none
THRESHOLDS = tuple(0.5 + 0.05 * i for i in range(10))


@dataclass
class ProposalRecall:
    """Recall of proposals: the fraction of the objects that a proposal overlaps at an IoU threshold."""

    images: int = 0
    proposals: int = 0
    objects: int = 0
    recalled: Tensor = field(default_factory=lambda: torch.zeros(len(THRESHOLDS)))  # objects at each of ``THRESHOLDS``

    def recall(self, threshold: float | None = None) -> float:
        """Recall in [0,1] at the IoU nearest to ``threshold``, or the mean over 0.5, 0.55, …, 0.95."""
        recall = self.recalled / max(self.objects, 1)
        if threshold is None:
            return float(recall.mean())
        return float(recall[min(range(len(THRESHOLDS)), key=lambda i: abs(THRESHOLDS[i] - threshold))])

    def add(self, detections: Detections, truth: GroundTruth) -> None:
        """Add a batch, in pixels of the network's input."""
        best = (pairwise_iou(detections.boxes, truth.boxes) * detections.valid[..., None]).amax(1)[truth.valid]
        self.images += len(detections.valid)
        self.proposals += int(detections.valid.sum())
        self.objects += len(best)
        self.recalled += (best >= torch.tensor(THRESHOLDS)[:, None]).sum(1)


def write_proposals(
    model: DetectionModel,
    loader: Iterable[Batch],
    truth: CocoTruth,
    path: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
) -> ProposalRecall:
    """Write the proposals of a model's first stage, or the detections of a model without one, for every image.

    The file (COCO results, boxes in pixels of the original images, ``category_id`` 1 throughout) is written
    atomically while images are predicted. ``poise.data.with_proposals`` reads it.

    Args:
        model: a ``DetectionModel`` with a proposal stage, or a one-stage model.
        loader: batches whose ``indices`` point into ``truth["images"]``.
        truth: COCO dictionary.
    """
    recall = ProposalRecall()
    with evaluation_mode(model), torch.inference_mode():
        results = _results(model, loader, truth, device, recall)
        write_text_atomically(
            path, _list_of(json.dumps(one, separators=(",", ":"), allow_nan=False) for one in results)
        )
    return recall


def _results(
    model: DetectionModel,
    loader: Iterable[Batch],
    truth: CocoTruth,
    device: torch.device | str,
    recall: ProposalRecall,
) -> Iterator[CocoDetection]:
    propose = proposer(model.network)
    for batch in loader:
        output = propose(*inputs(batch, device))
        boxes, scores = output.boxes.float(), output.scores.float()
        detections = map_tensors(Detections(boxes, scores, output.labels, output.valid), Tensor.cpu)
        recall.add(detections, batch.truth)
        for index, size, one in zip(batch.indices.tolist(), batch.truth.sizes, detections.unpad(), strict=True):
            record = truth["images"][index]
            boxes = to_original(one["boxes"], size, record["height"], record["width"])
            classless = torch.zeros_like(one["labels"])
            for result in coco_results(record["id"], boxes, one["scores"], classless, category_ids=[ANY_CLASS]):
                if min(result["bbox"][2:]) > 0:  # thinner boxes are 0 after rounding
                    yield result


def _list_of(items: Iterable[str]) -> Iterator[str]:
    """A JSON list, one item per line."""
    start = "[\n"
    for item in items:
        yield start + item
        start = ",\n"
    yield "\n]\n" if start != "[\n" else "[]\n"
