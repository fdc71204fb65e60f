"""Two real processes, one of them without objects: no hang, finite losses, the same gradient for every parameter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engine.test_distributed import assert_one_gradient, on_ranks
from torch.nn.parallel import DistributedDataParallel

from poise.engine.processes import Processes
from poise.models import create_model
from poise.structures import Batch, GroundTruth, Progress

SMALL: dict[str, Any] = {"channels": 16, "hidden": 32, "queries": 12, "encoder_layers": 1, "decoder_layers": 2}
SMALL |= {"backbone": "test_byobnet"}
PLAIN, HELPED = (
    {"attention_heads": 2},
    {"attention_heads": 2, "max_auxiliary_queries": 20, "regions": 16, "region_hidden": 16},
)
MODELS: dict[str, dict[str, Any]] = {
    "dino_r18": PLAIN,
    "h_deformable_detr_r18": {**PLAIN, "one_to_many_queries": 10, "one_to_many_repeats": 2},
    "group_dino_r18": {**PLAIN, "query_groups": 2},
    "co_dino_r18": HELPED,
    "co_deformable_detr_r18": {**HELPED, "auxiliary_heads": "atss,dw"},
}


def batch_of(rank: int) -> Batch:
    """Rank 0 has two objects, rank 1 a smaller image without any."""
    size, count = (64, 2) if rank == 0 else (24, 0)
    boxes = torch.tensor([[8.0, 8.0, 40.0, 48.0], [20.0, 16.0, 60.0, 60.0]])[:count]
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(rank))
    truth = GroundTruth.collate([{"boxes": boxes, "labels": torch.arange(count)}], [(size, size)])
    return Batch(pixels, truth, torch.arange(1))


@pytest.mark.parametrize("name", MODELS)
def test_a_rank_without_objects(name: str) -> None:
    def work(processes: Processes) -> None:
        torch.manual_seed(0)
        network = create_model(name, 3, **{**SMALL, **MODELS[name]}).network.train()
        for module in network.modules():  # one cell has no batch statistics
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        parallel = DistributedDataParallel(network)
        torch.manual_seed(1 + processes.rank)
        for _ in range(2):  # the second step finds out whether the first left a rank waiting
            network.zero_grad()
            output = parallel(batch_of(processes.rank), Progress())
            assert all(bool(loss.isfinite()) for loss in output.losses.values())
            output.total.backward()
        assert_one_gradient(network, processes)

    assert on_ranks(2, work) == [0, 0]
