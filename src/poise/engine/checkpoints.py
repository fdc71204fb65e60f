"""The files of a run from which it goes on: ``last.pt``, the one before it, and ``best.pt``."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from poise.storage import DamagedFile, read_safely, save_atomically

LAST, PREVIOUS, BEST, FAILED = "last.pt", "previous.pt", "best.pt", "failed.pt"


def save_last(folder: Path, payload: dict[str, Any]) -> None:
    """Write ``last.pt``; what it was before becomes ``previous.pt``. At any moment a whole file is there."""
    last, aside = folder / LAST, folder / f".{PREVIOUS}.part"
    if last.exists():
        aside.unlink(missing_ok=True)
        try:
            os.link(last, aside)
        except OSError:  # a file system without hard links
            shutil.copyfile(last, aside)
        os.replace(aside, folder / PREVIOUS)
    save_atomically(last, payload)


def read_last(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The newest whole checkpoint of a run folder, and what to tell about damaged ones.

    Raises:
        FileNotFoundError: there is none.
        DamagedFile: there are some, but none is whole.
    """
    messages: list[str] = []
    damaged: DamagedFile | None = None
    for name in (LAST, PREVIOUS):
        try:
            payload = read_safely(folder / name)
        except FileNotFoundError:
            continue
        except DamagedFile as error:
            damaged = error
            messages.append(f"{error.path.name} is damaged ({error.why})")
            continue
        if messages:
            messages[-1] += f"; going on from {name}"
        return payload, messages
    if damaged is not None:
        raise damaged
    raise FileNotFoundError(f"{folder} holds no checkpoint ({LAST}) to resume from")


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of all global generators of this process, as plain data."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": [version, list(words), gauss],
        "numpy": [str(kind), keys.tolist(), int(position), int(has_gauss), float(cached)],
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Give all global generators the states that :func:`random_state` returned."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))


def seed_all(seed: int, rank: int) -> None:
    """Seed every global generator; each process draws its own numbers."""
    torch.manual_seed(seed + 1_000_003 * rank)
    random.seed(seed + 1_000_003 * rank)
    np.random.seed((seed + 1_000_003 * rank) % 2**32)
