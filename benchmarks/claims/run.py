"""Train what the plan of docs/claims.md still lacks, two single-threaded processes at a time.

    python -m benchmarks.claims.run --home DIR --results docs/claims/results --commit HASH

DIR holds the data sets and weights that ``benchmarks.claims.prepare`` writes, and the run folders. A run that was
interrupted is resumed exactly; one that fails is recorded with the reason. SIGTERM stops after the running steps. The
process ids are written to DIR/claims.pids; ``kill -STOP -- -PGID`` pauses all of them, ``kill -CONT -- -PGID`` goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.claims.claims import CLAIMS, LATER, claim_of
from benchmarks.claims.plan import ClaimRun, due

METRICS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
LAB = ("positives", "without_positive", "entropy", "score_iou_correlation")


def read_results(folder: Path) -> dict[str, Any]:
    """Results by the names of their runs."""
    files = sorted(folder.glob("**/*.json"))
    return {path.relative_to(folder).with_suffix("").as_posix(): json.loads(path.read_text()) for path in files}


def write_result(folder: Path, name: str, result: dict[str, Any]) -> None:
    """Write one result; the file appears whole or not at all."""
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(path)


def train_one(run: ClaimRun, home: Path, results: Path, commit: str) -> int:
    """Train, or go on with, one run and write its result; the exit status of a process."""
    import torch

    from poise.api import Detector
    from poise.engine import train
    from poise.engine.health import TrainingDiverged
    from poise.engine.patience import ending

    os.chdir(home)  # recipes name their weights relative to it
    torch.set_num_threads(1)
    folder = Path("runs") / run.name
    recipe = run.recipe(run.data)
    result: dict[str, Any] = {**asdict(run), "commit": commit, "table": claim_of(run.claim).table}
    try:
        done = train(recipe, out=folder, resume=True, device="cpu", progress_display="plain")
    except TrainingDiverged as error:
        write_result(results, run.name, {**result, "failed": str(error), "cpu_minutes": cpu_minutes(folder)})
        return 0
    if not done.finished:
        cpu_minutes(folder)
        return done.exit_code
    rows = list(csv.DictReader((folder / "results.csv").open()))
    end = ending(rows, recipe)
    result["epochs"] = int(rows[-1]["epoch"])
    result |= {"steps": int(rows[-1]["step"]), "val_ap": float(rows[-1]["val/ap"])}
    if end is not None:
        result |= {"decay_from_epoch": end.start, "still_rising": end.still_rising}
    result["curve"] = [[int(row["step"]), round(float(row["val/ap"]), 5)] for row in rows if row.get("val/ap")]
    detector = Detector(done.last, "cpu")
    result["parameters"] = sum(parameter.numel() for parameter in detector.model.parameters())
    if run.stage != "rate":
        result["test"] = evaluate(detector, run, results)
        result["lab"] = lab_numbers(folder / "lab.csv")
        if run.claim == 5:
            result["lab"]["encoder/contrast"] = contrast(done.last, run.data, folder / "lab")
    write_result(results, run.name, {**result, "cpu_minutes": cpu_minutes(folder)})
    for path in folder.glob("*.pt"):
        path.unlink()
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    return 0


def evaluate(detector: Any, run: ClaimRun, results: Path) -> dict[str, float | None]:
    """Metrics on the test split, which neither the rate nor the length was chosen by; keeps the matches."""
    from benchmarks.claims.matches import match
    from poise.data import open_data

    found = detector.val(run.data, "test", on_bad_data="skip")
    match(open_data(run.data, "test", "skip").to_coco(), found.detections).save(results / f"{run.name}.npz")
    numbers = found.metrics.numbers()
    return {name: None if numbers[name] != numbers[name] else round(numbers[name], 5) for name in METRICS}


def contrast(checkpoint: Path, data: str, out: Path) -> float | None:
    """Area under the IoF-IoB curve of the encoder's features on the test images, mean over images."""
    from poise.cli.main import main

    words = ["--split", "test", "--on-bad-data", "skip", "--examples", "0", "--device", "cpu", "--out", str(out)]
    main(["lab", "discriminability", str(checkpoint), "--data", data, *words])
    (numbers,) = json.loads((out / "discriminability.json").read_text())["models"].values()
    return None if numbers["contrast"] is None else round(numbers["contrast"], 4)


def lab_numbers(path: Path) -> dict[str, float]:
    """Means of the last tenth of the looks at training batches, and of churn on the probe images, of each stage."""
    if not path.exists():
        return {}
    rows = list(csv.DictReader(path.open()))
    numbers: dict[str, float] = {}
    for stage, source in dict.fromkeys((row["stage"], row["source"]) for row in rows):
        own = [row for row in rows if (row["stage"], row["source"]) == (stage, source)]
        last = own[-max(1, len(own) // 10) :]
        names = [name for name in last[0] if name.startswith(LAB if source == "batch" else "churn")]
        for name in names:
            values = [float(row[name]) for row in last if row.get(name) not in (None, "", "nan")]
            if values:
                numbers[f"{stage}/{name}"] = round(sum(values) / len(values), 4)
    return numbers


def cpu_minutes(folder: Path) -> float:
    """CPU minutes of this run in this and earlier processes; called once, at the end of a process."""
    path = folder / "cpu_minutes.txt"
    earlier = float(path.read_text()) if path.exists() else 0.0
    usage = resource.getrusage(resource.RUSAGE_SELF)
    total = earlier + (usage.ru_utime + usage.ru_stime) / 60
    path.write_text(f"{total}\n")
    return round(total, 2)


def drive(args: argparse.Namespace) -> int:
    """Keep so many processes busy until nothing is due."""
    running: dict[str, tuple[subprocess.Popen[bytes], ClaimRun]] = {}
    stopping: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.append(number)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if os.getpgid(0) != os.getpid():
        os.setpgid(0, 0)
    claims = [claim for claim in (*CLAIMS, *LATER) if not args.claims or claim.number in args.claims]
    broken: set[str] = set()  # ended with an error; tried again by the next start
    while True:
        for name, (process, _) in list(running.items()):
            if process.poll() is not None:
                print(f"{time.strftime('%H:%M:%S')} {name}: exit status {process.returncode}", flush=True)
                if process.returncode != 0:
                    broken.add(name)
                del running[name]
        waiting = [run for run in due(read_results(args.results), claims) if run.name not in running.keys() | broken]
        while not stopping and waiting and len(running) < args.processes:
            run = waiting.pop(0)
            running[run.name] = start(run, args), run
            print(f"{time.strftime('%H:%M:%S')} {run.name}: started", flush=True)
        pids = [str(os.getpid()), *(str(process.pid) for process, _ in running.values())]
        (args.home / "claims.pids").write_text(f"group {os.getpgid(0)}\n" + "\n".join(pids) + "\n")
        if stopping:
            for process, _ in running.values():
                process.send_signal(signal.SIGTERM)
            for process, _ in running.values():
                process.wait()
            return 143
        if not running:
            return 1 if broken else 0
        time.sleep(2)


def start(run: ClaimRun, args: argparse.Namespace) -> subprocess.Popen[bytes]:
    log = args.home / "runs" / run.name / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    words = ["--home", args.home, "--results", args.results, "--commit", args.commit, "--one", json.dumps(asdict(run))]
    command = ["nice", "-n", "10", sys.executable, "-m", "benchmarks.claims.run", *map(str, words)]
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="data sets, weights and run folders")
    parser.add_argument("--results", type=Path, required=True, help="folder of the small result files")
    parser.add_argument("--commit", required=True, help="the commit that the installed poise was built from")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--claims", type=int, nargs="*", default=[], help="only these; by default all")
    parser.add_argument("--list", action="store_true", help="print what is due now, and train nothing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.home, args.results = args.home.resolve(), args.results.resolve()
    if args.list:
        print("\n".join(run.name for run in due(read_results(args.results))))
        return 0
    if args.one:
        return train_one(ClaimRun(**json.loads(args.one)), args.home, args.results, args.commit)
    return drive(args)


if __name__ == "__main__":
    sys.exit(main())
