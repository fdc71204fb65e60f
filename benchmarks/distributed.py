"""The same command under torchrun on one process and on two, of one thread each: training steps of one batch a process.

    python benchmarks/distributed.py [--size 320] [--batch 2] [--steps 6] [--model atss_r18_fpn] [--json FILE]

starts itself with ``torchrun --nproc-per-node=1``, then with 2. Each process trains on a batch of its own; gradients
are averaged over gloo by DistributedDataParallel. Ideal: two processes take as many steps a second as one, so twice as
many images. The machine must be otherwise idle and have two cores. All processes' parameters must be the same at the
end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import record
import torch
import torch.distributed as dist
from assignment_share import truth_of
from torch.nn.parallel import DistributedDataParallel

from poise.models import create_model
from poise.structures import Batch


def train(options: argparse.Namespace) -> None:
    """What each process does; the first writes what all took."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    model = create_model(options.model).train()
    network = DistributedDataParallel(model.network) if world > 1 else model.network
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 1e-3, 0.9)
    torch.manual_seed(rank)
    pixels = torch.randn(options.batch, 3, options.size, options.size)
    batch = Batch(pixels, truth_of(options.batch, options.size, 7, "cpu"), torch.arange(options.batch))
    taken = []
    for _ in range(options.steps + 1):
        dist.barrier()
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        network(batch, model.progress).total.backward()
        optimizer.step()
        taken.append(time.perf_counter() - start)
    digest = float(sum(p.detach().double().abs().sum() for p in model.network.parameters()))
    results: list[Any] = [None] * world
    dist.all_gather_object(results, {"seconds": statistics.median(taken[1:]), "digest": digest})
    if rank == 0:
        options.answer.write_text(json.dumps(results))
    dist.destroy_process_group()


def seconds(world: int, options: argparse.Namespace) -> float:
    """A step of the slowest process, once all have the same parameters."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
        own = {"model": options.model, "size": options.size, "batch": options.batch, "steps": options.steps}
        settings = [f"--{name}={value}" for name, value in own.items()]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([*torchrun, __file__, *settings, f"--answer={answer}"], env=environment, check=True)
        results = json.loads(answer.read_text())
    assert len(results) == world and len({process["digest"] for process in results}) == 1, (
        "the processes' parameters differ"
    )
    return max(process["seconds"] for process in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="atss_r18_fpn")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)  # of the processes that torchrun starts
    record.add_json(parser)
    options = parser.parse_args()
    if options.answer is not None:
        train(options)
        return
    alone, together = (seconds(world, options) for world in record.track((1, 2)))
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
    settings = {name: value for name, value in vars(options).items() if name != "answer"}
    record.write(options.json, "distributed", settings, [row])


if __name__ == "__main__":
    main()
