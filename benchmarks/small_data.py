"""Accuracy at equal CPU time on small data sets: the recipe ``small_data`` against YOLO11n of Ultralytics.

    python benchmarks/small_data.py --data NAME=PATH [NAME=PATH] [--minutes 10.4] [--seeds 0 1 2] [--sides SIDE ...]
                                    [--size 256] [--epochs N] [--work DIR] [--json FILE]

A side is ``yolo11n``, or a recipe of poise with changed settings: ``small_data:model.weights=`` starts from random
weights, as YOLO11n does, and ``small_data`` from the network inside the package. ``;`` separates settings.

Each training is a process of its own with one thread and no loading workers. Its number of epochs is computed from two
short trainings, so that the schedule of each side ends at the budget. CPU time is user and system time of the process
from its start, imports included, to the end of the training. Validation follows, and is not counted. Poise evaluates
both sides on the original images: COCO's AP of the val and test splits, and the AP of each class.

YOLO11n is built from yolo11n.yaml and trained with the defaults of Ultralytics at ``--size`` pixels. Its predictions
are those of its own validation: averaged weights, confidence 0.001, NMS 0.7, several labels a box, at most 300
detections. ``ultralytics`` and ``opencv-python-headless`` are needed for that side alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import record

YOLO = "yolo11n"


def cpu_seconds() -> float:
    """User and system time of this process and of its ended children since their start."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def read_settings(side: str) -> tuple[str, dict[str, Any]]:
    """Name of the recipe and changed settings of ``RECIPE:group.name=VALUE;group.name=VALUE``."""
    import ast

    name, _, changes = side.partition(":")
    settings: dict[str, Any] = {}
    for change in filter(None, changes.split(";")):
        path, _, text = change.partition("=")
        try:
            settings[path] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            settings[path] = text
    return name, settings


def train_poise(args: argparse.Namespace, out: Path, epochs: int) -> dict[str, Any]:
    """Train a recipe of poise; its CPU time and how the last weights are evaluated."""
    from poise.engine.run import train
    from poise.recipes import get_recipe
    from poise.recipes.convert import with_settings

    name, settings = read_settings(args.side)
    fixed = {"data.path": args.path, "data.val": "none", "data.on_bad_data": "skip", "data.workers": 0}
    fixed |= {"train.seed": args.seed, "evaluate.pictures": 0, "train.save_minutes": 0}
    recipe = with_settings(get_recipe(name).with_epochs(epochs), {**settings, **fixed})
    began, used = time.perf_counter(), cpu_seconds()
    result = train(recipe, out=out, device="cpu", progress_display="none")
    seconds = {"cpu": cpu_seconds(), "training": cpu_seconds() - used, "wall": time.perf_counter() - began}

    def evaluate(split: str) -> Any:
        from poise.api import Detector

        return Detector(result.last).val(args.path, split, on_bad_data="skip").metrics

    return {"seconds": seconds, "evaluate": evaluate}


def write_yolo(path: str, folder: Path) -> Path:
    """The data set as Ultralytics reads it: links to the images, and a text file of boxes beside each."""
    from poise.data import open_data, splits

    names: tuple[str, ...] = ()
    for split in splits(path):
        image_set = open_data(path, split, "skip")
        names = image_set.class_names
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for image in image_set:
            link = folder / "images" / split / image.path.name
            if not link.exists():
                link.symlink_to(image.path)
            x1, y1, x2, y2 = image.boxes.astype(float).T
            width, height = image.width, image.height
            rows = zip(image.labels, (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width,
                       (y2 - y1) / height, strict=True)  # fmt: skip
            text = "".join(f"{label} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for label, x, y, w, h in rows)
            (folder / "labels" / split / f"{image.path.stem}.txt").write_text(text)
    file = folder / "data.yaml"
    file.write_text(json.dumps({"path": str(folder), "train": "images/train", "val": "images/val",
                                "names": dict(enumerate(names))}))  # fmt: skip
    return file


def train_yolo(args: argparse.Namespace, out: Path, epochs: int) -> dict[str, Any]:
    """Train YOLO11n with the defaults of Ultralytics, without its validations and pictures."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    from ultralytics.models.yolo.detect import DetectionTrainer

    class Trainer(DetectionTrainer):  # type: ignore[misc]
        def validate(self) -> tuple[dict[str, float], float]:
            return {}, 0.0

        def final_eval(self) -> None:
            pass

        def read_results_csv(self) -> dict[str, Any]:
            return {}

    file = write_yolo(args.path, out.parent / f"{out.parent.name}-yolo-data" / Path(args.path).name)
    _, settings = read_settings(args.side)
    used = cpu_seconds()
    trainer = Trainer(overrides={
        "model": "yolo11n.yaml", "data": str(file), "imgsz": args.size, "epochs": epochs, "device": "cpu", "workers": 0,
        "val": False, "plots": False, "seed": args.seed, "project": str(out.parent), "name": out.name, "exist_ok": True,
        "pretrained": False, "verbose": False, **settings,
    })  # fmt: skip
    began = time.perf_counter()
    trainer.train()
    seconds = {"cpu": cpu_seconds(), "training": cpu_seconds() - used, "wall": time.perf_counter() - began}
    return {"seconds": seconds, "evaluate": lambda split: evaluate_yolo(args, trainer.last, split)}


def evaluate_yolo(args: argparse.Namespace, weights: Path, split: str) -> Any:
    """COCO's metrics of the averaged weights, by poise's evaluator."""
    from functools import partial

    from ultralytics import YOLO as Model
    from ultralytics.utils import nms

    from poise.data import open_data
    from poise.evaluate.coco import measure_coco

    if not isinstance(nms.non_max_suppression, partial):
        nms.non_max_suppression = partial(nms.non_max_suppression, multi_label=True)
    image_set = open_data(args.path, split, "skip")
    truth, model = image_set.to_coco(), Model(str(weights))
    options = {"imgsz": args.size, "conf": 0.001, "iou": 0.7, "max_det": 300, "device": "cpu", "verbose": False}
    detections: list[Any] = []
    for record_of, entry in zip(image_set, truth["images"], strict=True):
        (result,) = model.predict(str(record_of.path), **options)
        boxes = result.boxes.xyxy.tolist()
        for (x1, y1, x2, y2), score, label in zip(boxes, result.boxes.conf.tolist(), result.boxes.cls.tolist(),
                                                  strict=True):  # fmt: skip
            detections.append({"image_id": entry["id"], "category_id": image_set.category_ids[int(label)],
                               "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score})  # fmt: skip
    return measure_coco(truth, detections).metrics


def run_child(args: argparse.Namespace) -> None:
    """Train one side, and print a line of JSON."""
    import torch

    from poise.data import open_data, splits

    torch.set_num_threads(1)
    start = train_yolo if args.side.startswith(YOLO) else train_poise
    done = start(args, args.out, args.epochs)
    seconds, row = done["seconds"], {}
    images = len(open_data(args.path, "train", "skip"))
    row |= {"epochs": args.epochs, "cpu_minutes": round(seconds["cpu"] / 60, 3)}
    row |= {"training_minutes": round(seconds["training"] / 60, 3), "wall_minutes": round(seconds["wall"] / 60, 2)}
    row["images_per_s"] = round(images * args.epochs / seconds["training"], 2)
    for split in ("val", "test") if args.evaluate else ():
        if split in splits(args.path):
            metrics = done["evaluate"](split)
            values = {"ap": metrics.ap, "ap50": metrics.ap50, "ap75": metrics.ap75}
            values |= {f"ap {one.name}": one.ap for one in metrics.classes}
            row |= {f"{split} {name}": round(100 * value, 2) for name, value in values.items() if value == value}
    print(json.dumps(row))


def child(side: str, path: str, seed: int, epochs: int, *, args: argparse.Namespace, evaluate: bool) -> dict[str, Any]:
    """Train one side in a process of its own; its row."""
    name = re.sub(r"\W+", "-", f"{side} {Path(path).name} {seed} {epochs}").strip("-")
    out = args.work / f"{name}-{time.time_ns() % 10**9}"
    words = [sys.executable, __file__, "--child", side, "--path", path, "--seeds", str(seed), "--epochs", str(epochs)]
    words += ["--size", str(args.size), "--out", str(out), *(["--evaluate"] if evaluate else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    ended = subprocess.run(words, capture_output=True, text=True, env=environment)
    if ended.returncode:
        raise RuntimeError(f"{side}: {ended.stderr[-3000:]}")
    row: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return row


def epochs_for(minutes: float, short: dict[str, Any], long: dict[str, Any]) -> int:
    """Number of epochs that ends at the budget; the difference of two runs of few epochs is free of the start-up."""
    each = (long["cpu_minutes"] - short["cpu_minutes"]) / (long["epochs"] - short["epochs"])
    return max(1, round((minutes - short["cpu_minutes"]) / each) + short["epochs"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=[], metavar="NAME=PATH")
    parser.add_argument("--minutes", type=float, default=10.4, help="CPU minutes of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sides", nargs="+", default=[YOLO, "small_data:model.weights=", "small_data"])
    parser.add_argument("--size", type=int, default=256, help="image size of YOLO11n; a recipe has its own")
    parser.add_argument("--epochs", type=int, default=0, help="of all trainings, instead of a calibration")
    parser.add_argument("--work", type=Path, default=Path("runs/small_data"))
    for name in ("--child", "--path"):
        parser.add_argument(name, default="", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--evaluate", action="store_true", help=argparse.SUPPRESS)
    record.add_json(parser)
    args = parser.parse_args()
    if args.child:
        args.side, args.seed = args.child, args.seeds[0]
        run_child(args)
        return
    args.work = args.work.resolve()
    rows: list[record.Row] = []
    for name, path in (one.split("=", 1) for one in args.data):
        for side in args.sides:
            epochs = args.epochs or epochs_for(
                args.minutes, *(child(side, path, 0, n, args=args, evaluate=False) for n in (1, 3))
            )
            for seed in args.seeds:
                row = {"case": f"{name}, {side}, seed {seed}", "seed": seed}
                row |= child(side, path, seed, epochs, args=args, evaluate=True)
                rows.append(row)
                print(json.dumps(row), flush=True)
                record.write(args.json, "small_data", args, rows)


if __name__ == "__main__":
    main()
