"""``poise check``: report the faults of a data set before a training."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from poise.cli.check_pictures import write_pictures


@dataclass(frozen=True)
class Arguments:
    """Read a data set and report its faults, classes and sizes. The exit code is 3 if records would be dropped."""

    data: Positional[tuple[Path, ...]]
    """A folder or file in COCO, YOLO, Pascal VOC or LVIS layout. Of several, it is also reported what a training on all
    of them would join."""
    class_map: dict[str, str | None] = field(default_factory=dict)
    """Other names of classes: car vehicle van vehicle person null. null drops a class, ignore makes its objects regions
    to ignore."""
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
    from poise.data.check_joined import check_joined
    from poise.data.joining import source_names

    shown = sys.stderr.isatty() and not arguments.json
    progress = _show_progress if shown else None
    several = len(arguments.data) > 1
    options = not arguments.quick, progress, arguments.workers
    links, class_map = arguments.follow_links, {} if several else arguments.class_map
    reports = [check_data(path, *options, follow_links=links, class_map=class_map) for path in arguments.data]
    if shown:
        print("\r\x1b[K", end="", file=sys.stderr)
    joined = check_joined(arguments.data, arguments.class_map, arguments.follow_links) if several else None
    if arguments.json:
        numbers: list[dict[str, object]] = [report.to_dict() for report in reports]
        whole = numbers[0] if joined is None else {"data_sets": numbers, "joined": joined.to_dict()}
        print(json.dumps(whole, indent=1, ensure_ascii=False))
    else:
        print("\n\n".join([render(report) for report in reports] + ([joined.text()] if joined else [])))
    if arguments.pictures is not None:
        for path, name in zip(arguments.data, source_names(arguments.data), strict=True):
            folder = arguments.pictures / name if several else arguments.pictures
            page = write_pictures(path, folder, arguments.follow_links)
            print(f"pictures of what was read: {page}", file=sys.stderr if arguments.json else sys.stdout)
    return max(report.exit_code for report in reports)


def _show_progress(split: str, done: int, total: int) -> None:
    if done % 20 == 0 or done == total:
        print(f"\r{split}: {done}/{total} images", end="", file=sys.stderr, flush=True)
