"""Detect that ``torchrun --max-restarts`` restarted this process, so that it continues its run."""

from __future__ import annotations

import os
from pathlib import Path

from poise.engine.locks import identity
from poise.storage import write_text_atomically

NAME = "launch.txt"


def launch() -> str:
    """Return an id of the launch by ``torchrun``, the same after a restart; empty without ``torchrun``.

    It is the job's name (``--rdzv-id``) if there is one, else the identity of the agent process.
    """
    job = os.environ.get("TORCHELASTIC_RUN_ID", "")
    if job in ("", "none"):
        return " ".join(str(part) for part in identity(os.getppid()).values()) if job else ""
    return job


def note_launch(folder: Path) -> None:
    """Store in the run folder the id of the launch that started the run."""
    if launch():
        write_text_atomically(folder / NAME, launch() + "\n")


def was_restarted(folder: Path) -> bool:
    """Return whether this process was restarted by the ``torchrun`` that started the run in this folder."""
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0 or not (folder / NAME).is_file():
        return False
    return (folder / NAME).read_text(encoding="utf-8").strip() == launch()
