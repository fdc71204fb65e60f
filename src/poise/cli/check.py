"""``poise check``: report the faults of a data set before a training."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from poise.cli.check_pictures import write_pictures


@dataclass(frozen=True)
class Arguments:
    """Read a data set and report its faults, classes and sizes. The exit code is 3 if records would be dropped."""

    data: Positional[Path]
    """A folder or file in COCO, YOLO, Pascal VOC or LVIS layout."""
    quick: bool = False
    """Read only the headers of the images; truncated files and duplicates are not found."""
    workers: int | None = None
    """Threads that decode images; by default one per core."""
    pictures: Path | None = None
    """Draw images of every split with what was read of them (boxes, classes, crowds) into this folder."""
    follow_links: bool = False
    """Read what links in the data folder lead to; otherwise such links are refused."""
    json: bool = False
    """Print the whole report as JSON."""


def run(arguments: Arguments) -> int:
    """Print the report."""
    from poise.data import check_data, render

    shown = sys.stderr.isatty() and not arguments.json
    progress = _show_progress if shown else None
    report = check_data(arguments.data, not arguments.quick, progress, arguments.workers, arguments.follow_links)
    if shown:
        print("\r\x1b[K", end="", file=sys.stderr)
    print(json.dumps(report.to_dict(), indent=1, ensure_ascii=False) if arguments.json else render(report))
    if arguments.pictures is not None:
        page = write_pictures(arguments.data, arguments.pictures, arguments.follow_links)
        print(f"pictures of what was read: {page}", file=sys.stderr if arguments.json else sys.stdout)
    return report.exit_code


def _show_progress(split: str, done: int, total: int) -> None:
    if done % 20 == 0 or done == total:
        print(f"\r{split}: {done}/{total} images", end="", file=sys.stderr, flush=True)
