"""A training small enough to be killed many times: also a program, ``python tiny_training.py OUT [options]``.

The network keeps a fingerprint of every image index that it saw, in order, among its buffers.
"""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from poise.data.sampling import EpochPlan
from poise.engine.checkpoints import read_last
from poise.engine.display import SilentDisplay
from poise.engine.locks import locked
from poise.engine.logs import TrainingLog
from poise.engine.processes import Processes, process_group
from poise.engine.reproduce import seed_all
from poise.engine.state import TrainingState
from poise.engine.train import Training
from poise.losses import normalizer
from poise.recipes import DataSettings, EvaluateSettings, OptimizerSettings, Recipe, ScheduleSettings, TrainSettings
from poise.structures import Batch, GroundTruth, Progress, StepOutput


class TinyDetector(nn.Module):
    """Scores every cell of a 4x4 map; cells under an object's center are positive."""

    def __init__(self, dropout: float = 0.2, norm: bool = True) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU())
        self.branch = nn.Sequential(nn.Dropout(dropout), nn.Conv2d(8, 2, 1))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.before_step: Callable[[Progress], None] | None = None
        self.poison: dict[int, str] = {}  # step -> loss term that becomes NaN

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        if self.before_step is not None:
            self.before_step(progress)
        for index in batch.indices.tolist():
            self.seen.copy_((self.seen * 1_000_003 + index + 1) % (1 << 40))
        score, size = self.branch(self.backbone(batch.pixels)).unbind(1)
        truth = batch.truth
        centers = ((truth.boxes[..., :2] + truth.boxes[..., 2:]) / 8).long().clamp(0, 3)
        target = torch.zeros(len(score), 16).scatter_reduce(
            1, centers[..., 1] * 4 + centers[..., 0], truth.valid.float(), "amax"
        )
        count = normalizer(target.sum())
        heat = nn.functional.binary_cross_entropy_with_logits(score.flatten(1), target, reduction="none").sum() / count
        width = ((size.flatten(1) - 1).abs() * target).sum() / count
        losses = {"heat": heat, "width": width * (1 - progress.fraction / 4)}  # a weight that changes with progress
        if progress.step in self.poison:
            losses[self.poison[progress.step]] = losses[self.poison[progress.step]] * float("nan")
        return StepOutput(losses)


class Pictures(Dataset):
    """Noise with squares, a function of (epoch, index); every fourth image has no object, the others have three."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, dict[str, Tensor], int]:
        epoch, index = key
        generator = torch.Generator().manual_seed(epoch * 1000 + index)
        objects = 3 if index % 4 else 0
        cells = torch.randperm(9, generator=generator)[:objects]  # apart from each other
        corners = torch.stack((cells % 3, cells // 3), 1) * 4.0
        target = {"boxes": torch.cat((corners, corners + 4), 1), "labels": torch.zeros(objects, dtype=torch.int64)}
        return torch.randn(3, 16, 16, generator=generator), target, index


def collate(items: list[tuple[Tensor, dict[str, Tensor], int]]) -> Batch:
    pixels, targets, indices = zip(*items, strict=True)
    return Batch(torch.stack(pixels), GroundTruth.collate(targets, [(16, 16)] * len(items)), torch.tensor(indices))


class Order(Sampler):
    def __init__(self, plan: EpochPlan, epoch: int, start: int) -> None:
        self.plan, self.epoch, self.start = plan, epoch, start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return ([(self.epoch, i) for i in batch] for batch in self.plan.batches(self.epoch, self.start))


class TinyLoader:
    """Obeys the loader's contract, with real worker processes; draws from the global generator as DataLoader does."""

    def __init__(self, plan: EpochPlan, workers: int) -> None:
        self.plan, self.workers = plan, workers
        self.batches_per_epoch = plan.batches_per_epoch

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        order = Order(self.plan, epoch, start_batch)
        yield from DataLoader(
            Pictures(self.plan.count), batch_sampler=order, num_workers=self.workers, collate_fn=collate
        )


def tiny_recipe(**train: object) -> Recipe:
    settings = {"ema_decay": 0.9, "ema_ramp_steps": 5.0, "save_every": 3, "save_minutes": 0.0, "log_every": 2}
    return Recipe(
        data=DataSettings(batch_size=8),
        optimizer=OptimizerSettings("adamw", lr=0.01),
        schedule=ScheduleSettings(3, milestones=(2,), warmup_steps=4),
        train=TrainSettings(**{**settings, **train}),  # type: ignore[arg-type]
        evaluate=EvaluateSettings(metric="score"),
    )


def tiny_training(
    out: Path,
    recipe: Recipe,
    *,
    processes: Processes | None = None,
    workers: int = 0,
    count: int = 43,
    **network: object,
) -> Training:
    """A training that begins in ``out``, or goes on there if it holds a checkpoint."""
    processes = processes or Processes(torch.device("cpu"))
    seed_all(recipe.train.seed, 0)
    detector = TinyDetector(**network)  # type: ignore[arg-type]
    seed_all(recipe.train.seed, processes.rank)
    state = TrainingState(detector, recipe, processes.device)
    if (out / "last.pt").exists() or (out / "previous.pt").exists():
        payload, messages = read_last(out)
        print(*messages, *state.restore(payload["training"], processes), sep="\n", flush=True)
    plan = EpochPlan(
        count,
        recipe.data.batch_size // recipe.train.accumulate,
        recipe.train.seed,
        processes.rank,
        processes.world_size,
    )
    print(*state.align(plan.batches_per_epoch, recipe.train.accumulate), flush=True)
    log = TrainingLog(state, out, processes, SilentDisplay(), steps=0, epochs=recipe.schedule.epochs)
    training = Training(state, TinyLoader(plan, workers), recipe, out, processes, log, {"name": "tiny"})

    def validate() -> dict[str, float]:
        torch.rand(3)  # whatever validation draws must not matter
        return {"score": float(detector.branch[1].weight.detach().abs().sum())}

    training.validate = validate
    training.file_of = lambda index: f"image_{index}.png"
    return training


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--count", type=int, default=43)
    parser.add_argument("--plain-network", action="store_true")
    parser.add_argument("--clip", type=float, default=0.0)
    parser.add_argument("--die-at-step", type=int, default=-1)
    parser.add_argument("--die-in-save", type=int, default=-1)
    parser.add_argument("--signal", default="SIGKILL")
    parser.add_argument("--announce", action="store_true")
    parser.add_argument("--fail-rank", type=int, default=-1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    recipe = tiny_recipe(accumulate=options.accumulate, clip_norm=options.clip)
    with process_group("cpu", timeout_minutes=0.5) as processes:
        network = {"dropout": 0.0, "norm": False} if options.plain_network else {}
        setup = {"processes": processes, "workers": options.workers, "count": options.count}
        training = tiny_training(options.out, recipe, **setup, **network)

        def before_step(progress: Progress) -> None:
            if options.announce:
                print(f"step {progress.step}", flush=True)
            if progress.step == options.die_at_step:
                os.kill(os.getpid(), getattr(signal, options.signal))
            if progress.step == 2 and processes.rank == options.fail_rank:
                raise OSError("this rank's disk is gone")

        training.state.network.before_step = before_step
        if options.die_in_save >= 0:
            _die_in_save(options.die_in_save)
        if processes.first:
            with locked(options.out):
                stopped = training.run()
        else:
            stopped = training.run()
    print("stopped by", stopped, flush=True)


def _die_in_save(number: int) -> None:
    """Kill this process in the middle of its ``number``-th ``torch.save``."""
    save, calls = torch.save, iter(range(10_000))

    def torn(payload: object, file: object) -> None:
        save(payload, file)
        if next(calls) == number:
            file.truncate(file.tell() // 2)  # type: ignore[attr-defined]
            file.flush()  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = torn


if __name__ == "__main__":
    main()
