"""A long training seen from outside: memory, threads, open files and data workers, a line every so many steps.

    python benchmarks/long_run.py [--steps 10000] [--workers 2] [--every 500] [--folder FOLDER]

Generates scenes, starts ``poise train`` on them in a process of its own (a tiny ATSS, averaged weights, validation and
checkpoints as in a real run) and reads that process in ``/proc`` (Linux). Exit status 1 if resident memory grew by more
than 3 % between the second fifth and the last fifth of the run, or if anything is left behind.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from poise.data.demo import write_demo_data

IMAGES, BATCH, SIZE = 200, 2, 64
TINY = "backbone test_byobnet channels 16 depth 1"
GROWTH = 0.03  # of resident memory that is not called a leak: the allocator's own breathing


@dataclass(frozen=True)
class Sample:
    """What the process held at one moment; sizes in MB."""

    step: int
    seconds: float
    resident: float
    workers_resident: float  # of all data workers together
    workers: int
    threads: int
    files: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--every", type=int, default=500, help="steps between two lines of the table")
    parser.add_argument("--folder", type=Path, help="where data and run are written; by default a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        samples, left = measure(folder, options.steps, options.workers, options.every)
    print(table(samples, options.every))
    growth = grown(samples)
    print(f"\nresident memory, last fifth against second fifth: {100 * growth:+.2f} %")
    print("left behind: " + (", ".join(left) or "nothing"))
    sys.exit(1 if growth > GROWTH or left else 0)


def measure(folder: Path, steps: int, workers: int, every: int, images: int = IMAGES) -> tuple[list[Sample], list[str]]:
    """Train for ``steps`` steps; what the process held on the way, and what it left behind when it ended."""
    data = write_demo_data(folder / "scenes", train=images, val=20, size=SIZE)
    per_epoch = images // BATCH
    epochs = max(1, steps // per_epoch)
    shared_before = _names(Path("/dev/shm"))
    words = f"train atss_r18_fpn --epochs {epochs} --batch-size {BATCH} --workers {workers} --device cpu"
    words += f" --image-size {SIZE}"
    settings = f"--model.backbone-weights none --train.log-every {min(every, 50)} --evaluate.every 10"
    command = [sys.executable, "-u", "-m", "poise", *words.split(), *settings.split(), "--model.options", *TINY.split()]
    command += ["--data", str(data), "--out", str(folder / "run")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    samples = _watch(process, every)
    if process.wait():
        raise SystemExit(f"the training ended with {process.returncode}")
    return samples, _left(process.pid, folder / "run", _names(Path("/dev/shm")) - shared_before)


def _watch(process: subprocess.Popen[str], every: int) -> list[Sample]:
    """A sample whenever the training says that it has passed another ``every`` steps."""
    assert process.stdout is not None
    samples: list[Sample] = []
    start, due = time.monotonic(), every
    for line in process.stdout:
        found = re.match(r"epoch \d+/\d+  step (\d+)/", line)
        if found and int(found[1]) >= due:
            samples.append(_sample(process.pid, int(found[1]), time.monotonic() - start))
            print(f"step {samples[-1].step}: {samples[-1].resident:.0f} MB", file=sys.stderr, flush=True)
            due += every
    return samples


def _sample(pid: int, step: int, seconds: float) -> Sample:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    workers = [child for child in children if _alive(child)]
    threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Sample(step, seconds, _resident(pid), sum(map(_resident, workers)), len(workers), threads, files)


def _resident(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    return int(found[1]) / 1024 if found else 0.0


def _alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _left(session: int, run: Path, shared: set[str]) -> list[str]:
    """Processes of the session, temporary files and shared memory that outlived the run."""
    left = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            number = int(stat.read_text().rpartition(")")[2].split()[3])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if number == session:
            left.append(f"process {stat.parent.name}")
    left += [str(path) for path in run.glob(".*")] + [str(path) for path in run.glob("run.lock")]
    return left + [f"shared memory {name}" for name in sorted(shared) if name.startswith(("torch_", "sem.", "psm_"))]


def grown(samples: list[Sample]) -> float:
    """Growth of resident memory, its workers' included, from the second fifth of the samples to the last."""
    fifth = max(1, len(samples) // 5)
    early, late = samples[fifth : 2 * fifth], samples[-fifth:]
    first, last = (sum(s.resident + s.workers_resident for s in part) / len(part) for part in (early, late))
    return last / first - 1


def table(samples: list[Sample], every: int) -> str:
    lines = ["| step | minutes | process, MB | workers, MB | workers | threads | open files |", "|" + "---:|" * 7]
    for s in samples:
        numbers = f"{s.resident:.1f} | {s.workers_resident:.1f} | {s.workers} | {s.threads} | {s.files}"
        lines.append(f"| {s.step} | {s.seconds / 60:.1f} | {numbers} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
