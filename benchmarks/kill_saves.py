"""Processes killed while they save checkpoints: after each kill a whole checkpoint must be there, and no older one.

    python benchmarks/kill_saves.py [--kills 200] [--megabytes 4] [--seed 0]

A forked child saves ``last.pt`` in an endless loop, as a training does, and says when a save has returned; it is killed
with SIGKILL at a drawn time, half of the children in their first or second save. What ``read_last`` then finds must be
at least the last save that returned. The folder is kept from one kill to the next, and every tenth time ``last.pt`` is
harmed on purpose before the next child goes on. Exit status 1 if once no good checkpoint was there. (POSIX.)
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from poise.engine.checkpoints import LAST, PREVIOUS, read_last, save_last
from poise.engine.locks import remove_partial_files
from poise.storage import DamagedFile, read_safely


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--megabytes", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # forked processes cannot share a pool of threads
    with tempfile.TemporaryDirectory() as folder:
        found = kill_many(Path(folder), options.kills, int(options.megabytes * 2**18), random.Random(options.seed))
    print("| kills | inside a save | newest whole file last.pt | previous.pt | no good checkpoint |")
    print("|---:|---:|---:|---:|---:|")
    columns = ("kills", "inside a save", LAST, PREVIOUS, "lost")
    print("| " + " | ".join(str(found[column]) for column in columns) + " |")
    sys.exit(1 if found["lost"] else 0)


def kill_many(folder: Path, kills: int, numbers: int, draw: random.Random) -> Counter[str]:
    """Counts of what was found after so many kills."""
    found: Counter[str] = Counter()
    step = 0
    for number in range(kills):
        at_first = number > 0 and draw.random() < 0.5
        after = draw.uniform(0.0, 0.03 if at_first else 0.25)
        returned = max(step, kill_once(folder, step + 1, numbers, after, at_first))
        found["kills"] += 1
        found["inside a save"] += bool(list(folder.glob(".*.part")))
        try:
            step = read_last(folder)[0]["step"]
            found[LAST if _step(folder / LAST) == step else PREVIOUS] += 1
            found["lost"] += step < returned
        except (DamagedFile, FileNotFoundError):
            found["lost"] += 1
        remove_partial_files(folder)  # as the next run in a folder does
        if number % 10 == 9:
            harm(folder / LAST, draw)
            step = read_last(folder)[0]["step"]  # what a run would go on from
    return found


def kill_once(folder: Path, start: int, numbers: int, after: float, at_first: bool) -> int:
    """The last save that returned before the child was killed (0: none); at least one did, unless ``at_first``."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            save_forever(folder, start, numbers, writing)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as file:
        first = "0" if at_first else file.readline()
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return int([first, *file.readlines()][-1])


def save_forever(folder: Path, start: int, numbers: int, pipe: int) -> None:
    """Save one checkpoint after the other; the number of each that returned goes to ``pipe``."""
    for step in itertools.count(start):
        save_last(folder, {"step": step, "value": torch.full((numbers,), float(step))})
        os.write(pipe, f"{step}\n".encode())


def harm(path: Path, draw: random.Random) -> None:
    """One flipped bit, or the end cut off."""
    content = bytearray(path.read_bytes())
    position = draw.randrange(len(content))
    content[position] ^= 1 << draw.randrange(8)
    path.write_bytes(content if draw.random() < 0.5 else content[:position])


def _step(path: Path) -> int:
    try:
        return int(read_safely(path)["step"])
    except (DamagedFile, FileNotFoundError):
        return -1


if __name__ == "__main__":
    main()
