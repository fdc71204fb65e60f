"""Processes that ``torchrun --max-restarts`` starts again go on with the run that they had begun."""

from __future__ import annotations

import os
from pathlib import Path

from poise.engine.locks import identity
from poise.storage import write_text_atomically

NAME = "launch.txt"


def launch() -> str:
    """The start by ``torchrun`` that this process belongs to; the same in processes that it starts again; else empty.

    A job's name (``--rdzv-id``) where it has one, else the agent that started the process.
    """
    job = os.environ.get("TORCHELASTIC_RUN_ID", "")
    if job in ("", "none"):
        return " ".join(str(part) for part in identity(os.getppid()).values()) if job else ""
    return job


def note_launch(folder: Path) -> None:
    """Keep in the run folder which start by ``torchrun`` began to write there."""
    if launch():
        write_text_atomically(folder / NAME, launch() + "\n")


def was_restarted(folder: Path) -> bool:
    """Whether this process was started again by the ``torchrun`` that began the run in this folder."""
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0 or not (folder / NAME).is_file():
        return False
    return (folder / NAME).read_text(encoding="utf-8").strip() == launch()
