"""Every rank's losses are finite and reach every parameter, also on ranks without objects."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engine.test_distributed import assert_one_gradient, on_ranks
from torch.nn.parallel import DistributedDataParallel

from poise.detection_model import proposals_from_boxes
from poise.engine.processes import Processes
from poise.models import create_model
from poise.structures import Batch, GroundTruth, Progress

SIZE = 64
BOXES = torch.tensor([[8.0, 8.0, 40.0, 48.0], [20.0, 16.0, 60.0, 60.0]])
SMALL: dict[str, Any] = {"backbone": "test_byobnet", "channels": 16, "hidden": 32, "image_size": SIZE}


def batch_of(rank: int, crowd: bool) -> Batch:
    """Rank 0 has objects and proposals; the others have neither, or crowd regions and proposals that are NaN."""
    objects = 2 if rank == 0 or crowd else 0
    flags = torch.full((objects,), rank > 0)
    target = {"boxes": BOXES[:objects], "labels": torch.arange(objects), "iscrowd": flags}
    regions = BOXES + 2 if rank == 0 else BOXES[:objects] * torch.nan
    pixels = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(rank))
    truth = GroundTruth.collate([target], [(SIZE, SIZE)])
    return Batch(pixels, truth, torch.arange(1), proposals=proposals_from_boxes([regions]))


@pytest.mark.parametrize("crowd", [False, True], ids=["no objects", "all ignored"])
@pytest.mark.parametrize(
    ("name", "sampler"), [("faster_rcnn", "random"), ("libra_faster_rcnn", "balanced"), ("fast_rcnn", "ohem")]
)
def test_a_rank_without_anything(name: str, sampler: str, crowd: bool) -> None:
    def work(processes: Processes) -> None:
        torch.manual_seed(0)
        network = create_model(f"{name}_r18_fpn", 3, sampler=sampler, **SMALL).network.train()
        parallel = DistributedDataParallel(network)
        torch.manual_seed(1 + processes.rank)
        output = parallel(batch_of(processes.rank, crowd), Progress())
        assert all(bool(loss.isfinite()) for loss in output.losses.values())
        output.total.backward()
        assert_one_gradient(network, processes)

    assert on_ranks(2, work) == [0, 0]
