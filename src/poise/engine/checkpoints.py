"""Checkpoints of a run folder: ``last.pt``, ``previous.pt`` before it, ``best.pt`` and ``failed.pt``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from poise.storage import DamagedFile, read_safely, save_atomically

if TYPE_CHECKING:
    from poise.engine.state import Checkpoint

LAST, PREVIOUS, BEST, FAILED = "last.pt", "previous.pt", "best.pt", "failed.pt"


def save_last(folder: Path, payload: Checkpoint, keep_previous: bool = True) -> None:
    """Write ``last.pt``; the old one becomes ``previous.pt`` once the new one is complete.

    Args:
        keep_previous: False: replace the old file, which is still there until the new one is complete.
    """
    save_atomically(folder / LAST, payload, folder / PREVIOUS if keep_previous else None)


def drop_previous(folder: Path) -> None:
    """Delete ``previous.pt`` of a finished run if ``last.pt`` is complete."""
    if not (folder / PREVIOUS).exists():
        return
    try:
        read_safely(folder / LAST)
    except (FileNotFoundError, DamagedFile):
        return
    (folder / PREVIOUS).unlink()


def read_last(folder: Path) -> tuple[Checkpoint, list[str]]:
    """Read the newest complete checkpoint of a run folder.

    Returns:
        The checkpoint, and messages about damaged ones.

    Raises:
        FileNotFoundError: there is no checkpoint.
        DamagedFile: all checkpoints are damaged.
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
            messages[-1] += f"; continuing from {name}"
        return cast("Checkpoint", payload), messages
    if damaged is not None:
        raise damaged
    raise FileNotFoundError(f"{folder} has no checkpoint ({LAST}) to resume from")
