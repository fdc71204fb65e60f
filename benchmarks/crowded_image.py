"""Memory and time of each assigner, and of DW's losses, with 5,000 objects in one image of 800 x 1344.

Every row runs in a process of its own, so that its peak is its own. Usage: python benchmarks/crowded_image.py [objects]
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time

import torch

from poise.criteria.dual_weighting import DualWeightingCriterion
from poise.models.assigners import ASSIGNERS
from poise.nn.grids import points, squares
from poise.structures import GroundTruth, JointPredictions

STRIDES, HEIGHT, WIDTH, CLASSES = (8, 16, 32, 64, 128), 800, 1344, 80


def scene(objects: int, anchors: bool) -> tuple[JointPredictions, GroundTruth]:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.zeros(1, 1, -(-HEIGHT // stride), -(-WIDTH // stride)) for stride in STRIDES]
    priors = (squares(STRIDES) if anchors else points(STRIDES, 0.5))(maps)
    places = priors.boxes.shape[1]
    sides = torch.rand(1, places, 4, generator=generator) * priors.strides[:, None] * 4
    boxes = priors.centers.repeat(1, 1, 2) + sides * torch.tensor([-1.0, -1.0, 1.0, 1.0])
    logits = torch.randn(1, places, CLASSES, generator=generator) - 3
    predictions = JointPredictions(priors, logits, boxes, torch.randn(1, places, generator=generator))
    size = torch.rand(objects, 2, generator=generator) * 100 + 4
    corner = torch.rand(objects, 2, generator=generator) * (torch.tensor([WIDTH, HEIGHT]) - size)
    labels = torch.randint(CLASSES, (objects,), generator=generator)
    target = {"boxes": torch.cat((corner, corner + size), 1), "labels": labels}
    return predictions, GroundTruth.collate([target], [(HEIGHT, WIDTH)])


def peak() -> int:
    """MB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measure(name: str, objects: int) -> str:
    choice = ASSIGNERS[name.removesuffix("+losses")]
    predictions, truth = scene(objects, choice.needs == "anchors")
    before, start = peak(), time.perf_counter()
    assignment = choice.make()(predictions, truth)
    if name.endswith("+losses"):
        predictions.boxes.requires_grad_()
        predictions.logits.requires_grad_()
        losses = DualWeightingCriterion()(predictions, assignment, truth)
        torch.stack(list(losses.values())).sum().backward()
    return f"{name:32}{time.perf_counter() - start:8.1f} s {peak() - before:8d} MB more"


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    if len(sys.argv) > 2:
        print(measure(sys.argv[2], count))
    else:
        # Blocks are handed back at once, so that the peak is what was in use and not what the allocator kept.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
        for row in (*ASSIGNERS, "dual_weighting+losses"):
            subprocess.run([sys.executable, __file__, str(count), row], check=True, env=environment)
