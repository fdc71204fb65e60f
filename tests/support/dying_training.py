"""``poise`` as a program whose process of rank 1 is killed once: ``python dying_training.py STEP train …``.

Only the first start dies; what torchrun starts again lives.
"""

from __future__ import annotations

import os
import signal
import sys

import torch

from poise.cli import main
from poise.engine.step import Stepper


def die_at(step: int) -> None:
    """Let this process be killed within that step."""
    part = Stepper._part

    def dying(self: Stepper, *arguments: object) -> object:
        if self.state.position.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return part(self, *arguments)  # type: ignore[arg-type]

    Stepper._part = dying  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    torch.set_num_threads(1)
    if os.environ.get("RANK") == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
        die_at(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
