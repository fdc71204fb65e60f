"""Progress of long commands on standard error, where that is a terminal."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

from poise.suggestions import clock

CLEAR = "\r\x1b[K"  # back to the start of the line, which is erased


class ImageCounter:
    """Shows ``120/500 images, 1:30 left``; the time left is that of the mean speed so far.

    Args:
        total: number of images.
        shown: whether something is printed; by default where standard error is a terminal.
    """

    def __init__(self, total: int, shown: bool | None = None) -> None:
        self.total, self.done = total, 0
        self.shown = sys.stderr.isatty() if shown is None else shown
        self.started = time.monotonic()

    def __call__(self, images: int) -> None:
        """Add images that are done."""
        self.done += images
        if self.shown:
            left = (time.monotonic() - self.started) / max(1, self.done) * (self.total - self.done)
            print(
                f"{CLEAR}{self.done}/{self.total} images, {clock(round(left))} left",
                end="",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Erase the line."""
        if self.shown:
            print(CLEAR, end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def elapsed(text: str) -> Iterator[None]:
    """Show a text with the time since, for work whose end is not known."""
    if not sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)
        yield
        return
    over, started = threading.Event(), time.monotonic()

    def show() -> None:
        while not over.wait(1.0):
            print(f"{CLEAR}{text}, {clock(round(time.monotonic() - started))}", end="", file=sys.stderr, flush=True)

    print(text, end="", file=sys.stderr, flush=True)
    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        print(file=sys.stderr)
