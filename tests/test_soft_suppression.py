"""Soft-NMS against the loop of its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from poise.postprocess import SoftNMSPostProcess, TopKPostProcess, soft_nms
from poise.structures import Detections


def literal(boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float, least: float) -> list[tuple[float, int]]:
    left, found = {i: float(score) for i, score in enumerate(scores)}, []
    while left:
        best = max(left, key=lambda i: (left[i], -i))
        found.append((left.pop(best), best))
        for i in list(left):
            shared = float(box_iou(boxes[best][None], boxes[i][None]))
            if labels[i] == labels[best] and shared >= overlap:
                left[i] *= 1 - shared
            if left[i] < least:
                del left[i]
    return found


@pytest.mark.parametrize("overlap", [0.3, 0.8])
def test_equals_the_loop(overlap: float) -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 40, 2, generator=generator) * 20
    boxes = torch.cat((corner, corner + 20 + 10 * torch.rand(2, 40, 2, generator=generator)), 2)
    scores, labels = torch.rand(2, 40, generator=generator), torch.randint(3, (2, 40), generator=generator)
    found = Detections(boxes, scores, labels, torch.ones_like(labels, dtype=torch.bool))
    softened, index = soft_nms(found, overlap, 0.05, 40)
    for b in range(2):
        wanted = literal(boxes[b], scores[b], labels[b], overlap, 0.05)
        count = len(wanted)
        assert index[b, :count].tolist() == [i for _, i in wanted]
        assert softened[b, :count].tolist() == pytest.approx([score for score, _ in wanted], rel=1e-5)
        assert bool((softened[b, count:] < 0).all())


def test_best_answers_and_their_suppression() -> None:
    logits = torch.tensor([[[2.0, -9.0], [1.0, -9.0], [0.0, 0.5]]])
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.5], [-5.0, 0.0, 50.0, 9.0]]])
    sizes = torch.tensor([[20.0, 40.0]])
    plain = TopKPostProcess(4)(logits, boxes, sizes)
    assert plain.labels.tolist() == [[0, 0, 1, 0]] and float(plain.boxes.max()) == 40.0
    soft = SoftNMSPostProcess(6, 3)(logits, boxes, sizes)
    assert soft.labels.tolist() == [[0, 1, 0]]
    assert soft.scores[0].tolist() == pytest.approx(logits.sigmoid()[0][[0, 2, 2], [0, 1, 0]].tolist())
