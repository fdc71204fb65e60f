"""The files of a run from which it goes on: ``last.pt``, the one before it, and ``best.pt``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from poise.storage import DamagedFile, read_safely, save_atomically

LAST, PREVIOUS, BEST, FAILED = "last.pt", "previous.pt", "best.pt", "failed.pt"


def save_last(folder: Path, payload: dict[str, Any]) -> None:
    """Write ``last.pt``; what it was becomes ``previous.pt`` once the new one is in its place."""
    save_atomically(folder / LAST, payload, folder / PREVIOUS)


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
