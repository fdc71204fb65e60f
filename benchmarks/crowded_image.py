"""Memory and time of each assigner, and with the losses of some, with 5,000 objects in one image of 800 x 1344.

A row "+losses" includes the losses and their backward pass. FreeAnchor has nine anchors a cell, as published.

Every row runs in a process of its own, so that its peak is its own. Usage: python benchmarks/crowded_image.py [objects]
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from typing import Any

import torch
from torch import Tensor

from poise.boxes import LogDistances
from poise.criteria.auto_assign import AutoAssignCriterion
from poise.criteria.bags import FreeAnchorCriterion
from poise.criteria.dual_weighting import DualWeightingCriterion
from poise.criteria.fovea import FoveaCriterion
from poise.criteria.paa import PAACriterion
from poise.models.assigners import ASSIGNERS
from poise.nn.layers import AnchorGrid, point_grid, retina_anchors, square_anchors
from poise.structures import DeltaPredictions, GroundTruth, JointPredictions, Predictions

STRIDES, HEIGHT, WIDTH, CLASSES = (8, 16, 32, 64, 128), 800, 1344, 80
LOSSES: dict[str, Any] = {
    "dual_weighting": DualWeightingCriterion(),
    "auto_assign": AutoAssignCriterion(),
    "free_anchor": FreeAnchorCriterion(),
    "paa": PAACriterion(),
    "fovea": FoveaCriterion(LogDistances()),
}


def grid_of(name: str) -> AnchorGrid:
    if name == "free_anchor":
        return retina_anchors(STRIDES)
    return square_anchors(STRIDES) if ASSIGNERS[name].needs.startswith("anchors") else point_grid(STRIDES, 0.5)


def scene(name: str, objects: int) -> tuple[Predictions, GroundTruth]:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.zeros(1, 1, -(-HEIGHT // stride), -(-WIDTH // stride)) for stride in STRIDES]
    priors = grid_of(name)(maps)
    count = priors.boxes.shape[1]
    sides = torch.rand(1, count, 4, generator=generator) * priors.strides[:, None] * 4
    boxes = priors.centers.repeat(1, 1, 2) + sides * torch.tensor([-1.0, -1.0, 1.0, 1.0])
    logits = torch.randn(1, count, CLASSES, generator=generator) - 3
    predictions: Predictions = JointPredictions(priors, logits, boxes, torch.randn(1, count, generator=generator))
    if name in ("free_anchor", "fovea"):
        predictions = DeltaPredictions(priors, logits, boxes, torch.randn(1, count, 4, generator=generator))
    size = torch.rand(objects, 2, generator=generator) * 100 + 4
    corner = torch.rand(objects, 2, generator=generator) * (torch.tensor([WIDTH, HEIGHT]) - size)
    labels = torch.randint(CLASSES, (objects,), generator=generator)
    target = {"boxes": torch.cat((corner, corner + size), 1), "labels": labels}
    return predictions, GroundTruth.collate([target], [(HEIGHT, WIDTH)])


def peak() -> int:
    """MB that this process has used at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measure(name: str, objects: int) -> str:
    assigner = name.removesuffix("+losses")
    predictions, truth = scene(assigner, objects)
    trained = assigner != name
    for part in vars(predictions).values():
        if isinstance(part, Tensor):
            part.requires_grad_(trained)
    before, start = peak(), time.perf_counter()
    assignment = ASSIGNERS[assigner].make()(predictions, truth)
    if trained:
        losses = LOSSES[assigner](predictions, assignment, truth)
        torch.stack(list(losses.values())).sum().backward()
    return f"{name:32}{time.perf_counter() - start:8.1f} s {peak() - before:8d} MB more"


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    if len(sys.argv) > 2:
        print(measure(sys.argv[2], count))
    else:
        # Blocks are handed back at once, so that the peak is what was in use and not what the allocator kept.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
        for row in (*ASSIGNERS, *(f"{name}+losses" for name in LOSSES)):
            subprocess.run([sys.executable, __file__, str(count), row], check=True, env=environment)
