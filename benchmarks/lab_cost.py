"""What ``poise train --lab-every N`` costs: a look at a step, and the probe after an epoch, against the step itself.

On the CPU the processor's time is measured, not the clock's, so that other work on the machine does not count.

    python benchmarks/lab_cost.py [--size 320] [--batch 4] [--steps 4] [--every 50] [--threads 1] [--device cpu]
                                  [--models atss_r18_fpn dw_r18_fpn …]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import record
import torch

from poise.data import ImageSet, open_data
from poise.data.demo import write_demo_data
from poise.data.loader import train_loader
from poise.engine.assignment_monitor import AssignmentMonitor
from poise.engine.health import Position
from poise.engine.model import build_model
from poise.engine.processes import Processes
from poise.engine.state import TrainingState
from poise.engine.step import Stepper
from poise.recipes import finetune, with_settings
from poise.structures import Batch

MODELS = ("atss_r18_fpn", "dw_r18_fpn", "faster_rcnn_r18_fpn", "nanodet_plus_m_320", "dino_r18")
IMAGES = 16  # of the probe


def seconds(work: Callable[[], object], device: torch.device) -> float:
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def measure(name: str, images: ImageSet, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    device = torch.device(args.device)
    settings = {"model.backbone_weights": "none", "data.batch_size": args.batch, "train.lab_every": 1}
    recipe = with_settings(finetune(name, 1, args.size), settings)
    model, _ = build_model(recipe, images, fresh=True)
    model.to(device)
    model.network.train()
    processes = Processes(device)
    state = TrainingState(model.network, recipe, device)
    stepper = Stepper(state, processes, recipe.train)
    loader = train_loader(images, recipe.augment, model.preprocess, batch_size=args.batch, seed=0, workers=0)
    batches: Sequence[Batch] = [batch for batch, _ in zip(loader.epoch(0), range(args.steps + 1), strict=False)]
    watch = AssignmentMonitor(state, model, images, folder, processes=processes, every=1, images=IMAGES)
    watch.open(Position())
    steps, looks = [], []
    for number, batch in enumerate(batches):
        observer = watch.observer(number + 1)
        assert observer is not None
        took: list[float] = []

        def look(predictions, truth, observer=observer, took=took):  # type: ignore[no-untyped-def]
            took.append(seconds(lambda: observer(predictions, truth), device))

        stepper.observer = look
        whole = seconds(lambda batch=batch: stepper([batch]), device)  # type: ignore[misc]
        written = seconds(lambda number=number: watch.write(Position(number + 1), None), device)  # type: ignore[misc]
        if number:  # the first step warms up
            steps.append(whole - took[0])
            looks.append(took[0] + written)
    probe = seconds(lambda: watch.probe(Position(len(batches)), None), device) / IMAGES
    step, looked = statistics.median(steps), statistics.median(looks)
    return {"step": step, "look": looked, "share": looked / (args.every * step), "probe": probe * args.batch / step}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{args.batch} images of {args.size} pixels, {args.threads} thread(s), {args.device}; N = {args.every}")
    print("| model | step, s | a look, s | share at N | an image of the probe, in training images |")
    print("|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        needed = args.batch * (args.steps + 1)
        scenes = write_demo_data(Path(folder) / "scenes", train=max(needed, IMAGES), val=1, size=args.size)
        images = open_data(scenes, "train")
        for name in record.track(args.models):
            found = measure(name, images, Path(folder), args)
            share, probe = f"{100 * found['share']:.2f} %", f"{found['probe']:.2f}"
            print(f"| {name} | {found['step']:.2f} | {found['look']:.3f} | {share} | {probe} |", flush=True)


if __name__ == "__main__":
    main()
