"""Two processes of one thread each against one: training steps of one batch a process, under DistributedDataParallel.

    python benchmarks/distributed.py [--size 320] [--batch 2] [--steps 6] [--model atss_r18_fpn] [--json FILE]

One process trains for some steps alone; then two do the same, each on a batch of its own, gradients averaged over
gloo. Ideal: as many steps a second, so twice as many images. The machine must be otherwise idle and have two cores. The
parameters of both processes must be the same at the end.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

import record
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from assignment_share import truth_of
from torch.nn.parallel import DistributedDataParallel

from poise.models import create_model
from poise.structures import Batch


def train(rank: int, world: int, options: argparse.Namespace, answers: Any) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(options.port)}
    if world > 1:
        dist.init_process_group("gloo", rank=rank, world_size=world)
    torch.manual_seed(0)
    model = create_model(options.model).train()
    network = DistributedDataParallel(model.network) if world > 1 else model.network
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 1e-3, 0.9)
    torch.manual_seed(rank)
    pixels = torch.randn(options.batch, 3, options.size, options.size)
    batch = Batch(pixels, truth_of(options.batch, options.size, 7, "cpu"), torch.arange(options.batch))
    taken = []
    for _ in range(options.steps + 1):
        if world > 1:
            dist.barrier()
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        network(batch, model.progress).total.backward()
        optimizer.step()
        taken.append(time.perf_counter() - start)
    digest = float(sum(p.detach().double().abs().sum() for p in model.network.parameters()))
    answers.put((rank, statistics.median(taken[1:]), digest))
    if world > 1:
        dist.destroy_process_group()


def seconds(world: int, options: argparse.Namespace) -> float:
    """A step of the slowest process, once all have the same parameters."""
    context = processes.get_context("spawn")
    answers = context.SimpleQueue()
    running = processes.start_processes(train, (world, options, answers), world, join=False, start_method="spawn")
    found = [answers.get() for _ in range(world)]
    while not running.join():
        pass
    assert len({digest for _, _, digest in found}) == 1, "the processes' parameters differ"
    return max(taken for _, taken, _ in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="atss_r18_fpn")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--port", type=int, default=29871)
    record.add_json(parser)
    options = parser.parse_args()
    alone, together = seconds(1, options), seconds(2, options)
    print(f"{record.headline()}; one thread a process, batch {options.batch} a process, {options.size} px")
    print("| processes | s a step | images a second | of the ideal |\n|---:|---:|---:|---:|")
    print(f"| 1 | {alone:.3f} | {options.batch / alone:.2f} | |")
    print(f"| 2 | {together:.3f} | {2 * options.batch / together:.2f} | {100 * alone / together:.1f} % |")
    row = {
        "case": f"{options.model}, 2 processes",
        "alone time": alone,
        "step_s": together,
        "ideal_share": alone / together,
    }
    record.write(options.json, "distributed", options, [row])


if __name__ == "__main__":
    main()
