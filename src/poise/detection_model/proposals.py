"""Proposals as input of a model (Fast R-CNN)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from poise.structures import Detections


class MissingProposals(ValueError):
    """A detector that needs proposals got none; the message says where they come from."""

    def __str__(self) -> str:
        return (
            "this model has no region proposal network and needs proposals as input. Name a file of them "
            "(poise train … --data.proposals FILE, poise eval … --proposals FILE; poise eval OTHER_MODEL "
            "--save-proposals FILE writes one), in Python model(images, proposals=[boxes, …]), or use a model "
            "with a region proposal network, such as faster_rcnn_r50_fpn"
        )


def proposals_from_boxes(boxes: Sequence[Tensor]) -> Detections:
    """Pad boxes (n_i,4) of each image, xyxy pixels, to proposals (B,K) with K the largest n_i."""
    width = max([1, *map(len, boxes)])
    padded = torch.stack([pad(part.reshape(-1, 4).float(), (0, 0, 0, width - len(part))) for part in boxes])
    counts = torch.tensor([len(part) for part in boxes], device=padded.device)
    valid = torch.arange(width, device=padded.device) < counts[:, None]
    return Detections(padded, valid.float(), torch.zeros_like(valid, dtype=torch.int64), valid)
