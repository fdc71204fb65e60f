"""Trainings killed with SIGKILL at drawn moments, resumed, and compared with the undisturbed run, bit by bit.

    python benchmarks/kill_points.py [--points 20] [--ranks 1 2] [--workers 0 2] [--seed 0]

Every run is a real one in processes of its own (POSIX: they are forked): recipe, data loader, tiny ATSS, averaged
weights, validation, checkpoints. With two ranks one of them is killed and the other has to end by itself. A quarter of
the points each lies inside a step (after the backward pass), inside the writing of a checkpoint, inside a validation,
and anywhere by the clock. Exit status 1 if any final state differs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import poise.engine.run as engine_run
import poise.engine.validation as validation
from poise.data.demo import write_demo_data
from poise.engine.step import Stepper
from poise.recipes import Recipe, finetune, with_settings
from poise.storage import read_safely, writing

KINDS = ("in a step", "in a save", "in a validation", "by the clock")
CLOCKS = {"seconds", "earlier", "memory_mb", "workers", "path"}  # what may differ between equal runs
EPOCHS, IMAGES, BATCH = 3, 10, 4  # three steps an epoch, the last of two images


@dataclass(frozen=True)
class Point:
    """When a process is killed: in which step, save or batch of validation images (from 0), or after which seconds."""

    kind: str
    number: float
    rank: int = 0


@dataclass(frozen=True)
class Ended:
    """How a run's processes ended, and how long the last lived on after the first had died."""

    codes: tuple[int, ...]
    wait: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| ranks | workers | kills | of these landed | resumed bit-equal | longest wait for the other rank |")
    print("|---:|---:|---:|---:|---:|---:|")
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        data = write_demo_data(Path(folder) / "scenes", train=IMAGES, val=3, size=64)
        for ranks in options.ranks:
            for workers in options.workers:
                where = Path(folder) / f"{ranks}-{workers}"
                wrong += sweep(where, data, ranks, workers, options.points, random.Random(options.seed))
    print("\n".join(wrong) or "\nEvery final state equals that of the undisturbed run.")
    sys.exit(1 if wrong else 0)


def sweep(folder: Path, data: Path, ranks: int, workers: int, points: int, draw: random.Random) -> list[str]:
    """Kill and resume at so many points; prints a line of the table and returns what went wrong."""
    start = time.monotonic()
    assert run(folder / "whole", data, ranks, workers).codes == (0,) * ranks, "the undisturbed run failed"
    seconds = time.monotonic() - start
    wrong, landed, wait = [], 0, 0.0
    for number, point in enumerate(draw_points(points, ranks, seconds, draw)):
        killed, differing = kill_and_resume(folder / str(number), folder / "whole", data, ranks, workers, point)
        landed += -signal.SIGKILL in killed.codes
        wait = max(wait, killed.wait)
        if differing:
            wrong.append(f"{ranks} ranks, {workers} workers, {point}: {differing}")
    print(f"| {ranks} | {workers} | {points} | {landed} | {points - len(wrong)} | {wait:.1f} s |", flush=True)
    return wrong


def draw_points(count: int, ranks: int, seconds: float, draw: random.Random) -> list[Point]:
    """Points of all kinds in turn."""
    steps, saves = 3 * EPOCHS, 3 * EPOCHS
    numbers = {
        "in a step": lambda: draw.randrange(steps),
        "in a save": lambda: draw.randrange(saves),
        "in a validation": lambda: draw.randrange(2 * EPOCHS if ranks == 1 else EPOCHS),
        "by the clock": lambda: seconds * draw.uniform(0.1, 0.9),
    }
    kinds = [KINDS[number % len(KINDS)] for number in range(count)]
    return [Point(kind, numbers[kind](), 0 if kind == "in a save" else draw.randrange(ranks)) for kind in kinds]


def kill_and_resume(out: Path, whole: Path, data: Path, ranks: int, workers: int, point: Point) -> tuple[Ended, str]:
    """How the killed run ended, and what differs after it was resumed (empty: nothing)."""
    killed = run(out, data, ranks, workers, point)
    resumed = run(out, data, ranks, workers)
    if resumed.codes != (0,) * ranks:
        return killed, f"resuming ended with {resumed.codes}"
    for name in ("last.pt", "best.pt"):
        if found := difference(read_safely(whole / name), read_safely(out / name)):
            return killed, f"{name} differs at {found}"
    return killed, ""


def run(out: Path, data: Path, ranks: int, workers: int, point: Point | None = None) -> Ended:
    """One training on ``ranks`` processes, which goes on where ``out`` stands."""
    port = free_port()
    children = [_start(out, data, rank, ranks, workers, port, point) for rank in range(ranks)]
    if point is not None and point.kind == "by the clock":
        time.sleep(point.number)
        os.kill(children[point.rank], signal.SIGKILL)
    codes, first = {}, 0.0
    for _ in children:
        pid, status = os.wait()
        first = first or time.monotonic()
        codes[pid] = os.waitstatus_to_exitcode(status)
    return Ended(tuple(codes[child] for child in children), time.monotonic() - first)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(out: Path, data: Path, rank: int, ranks: int, workers: int, port: int, point: Point | None) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        torch.set_num_threads(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if point is not None:
            os.dup2(1, 2)  # the survivors' complaints
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
        os.environ.update({name: str(value) for name, value in names.items()})
        if point is not None and point.rank == rank:
            arm(point)
        engine_run.train(recipe(workers), data=data, out=out, resume=True, device="cpu", progress_display="none")
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def recipe(workers: int) -> Recipe:
    settings = {
        "model.backbone_weights": "none",
        "model.options": {"backbone": "test_byobnet", "channels": 16, "depth": 1},
        "data.batch_size": BATCH,
        "data.eval_batch_size": 2,
        "data.workers": workers,
        "augment.mosaic": 0.5,
        "train.save_every": 2,
        "train.timeout_minutes": 1.0,
        "evaluate.every": 1,
        "evaluate.pictures": 0,
    }
    return with_settings(finetune("atss_r18_fpn", EPOCHS, 64), settings)


def arm(point: Point) -> None:
    """Let this process kill itself at the point."""
    calls = iter(range(1_000_000))

    def due() -> bool:
        return next(calls) == point.number

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if point.kind == "in a step":
        clip = Stepper._clip

        def dying(self: Stepper) -> Any:
            norm = clip(self)
            return die() if due() else norm

        Stepper._clip = dying  # type: ignore[method-assign]
    elif point.kind == "in a save":
        seal = writing.seal

        def torn(file: Any) -> None:
            if due():
                file.truncate(file.tell() // 2)
                file.flush()
                die()
            seal(file)

        writing.seal = torn
    elif point.kind == "in a validation":
        evaluate = validation.evaluate

        def interrupted(model: Any, loader: Any, *rest: Any, **more: Any) -> Any:
            return evaluate(model, _Watched(loader), *rest, **more)

        class _Watched:
            def __init__(self, loader: Any) -> None:
                self.loader = loader

            def __len__(self) -> int:
                return len(self.loader)

            def __iter__(self) -> Iterator[Any]:
                for batch in self.loader:
                    if due():
                        die()
                    yield batch

        validation.evaluate = interrupted  # type: ignore[assignment]


def difference(a: Any, b: Any, where: str = "") -> str:
    """The first entry in which two checkpoints differ."""
    if isinstance(a, torch.Tensor):
        same = isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
        return "" if same else where
    if isinstance(a, dict):
        if not isinstance(b, dict) or list(a) != list(b):
            return where or "the keys"
        return next(
            (found for key in a if key not in CLOCKS and (found := difference(a[key], b[key], f"{where}/{key}"))), ""
        )
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return where
        pairs = enumerate(zip(a, b, strict=True))
        return next((found for i, (x, y) in pairs if (found := difference(x, y, f"{where}/{i}"))), "")
    return "" if a == b or (a != a and b != b) else where


if __name__ == "__main__":
    main()
