"""``poise shard``: a data set as tar shards and packed annotations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class Arguments:
    """Write a data set as tar shards with packed annotations, which every command takes in place of the data set.

    Few large files are read faster from network disks, and annotations open in a fraction of a second. Images keep
    their bytes; training on the shards gives the same batches, bit by bit, and resumes as exactly. The tars can be
    streamed by WebDataset.
    """

    data: Positional[Path]
    """The data set."""
    out: Path
    """The folder to write into."""
    split: tuple[str, ...] = ()
    """Splits to write; all of them by default."""
    megabytes: int = 512
    """About how large a shard may become."""


def run(arguments: Arguments) -> int:
    """Write and say what was written."""
    from rich.progress import Progress

    from poise.data import open_data, splits
    from poise.data.shards import write_shards

    for split in arguments.split or splits(arguments.data):
        image_set = open_data(arguments.data, split)
        with Progress(transient=True) as progress:
            bar = progress.add_task(split, total=len(image_set))
            paths = write_shards(image_set, arguments.out, arguments.megabytes, partial(progress.advance, bar))
        size = sum(path.stat().st_size for path in paths) / 1e6
        print(
            f"{split}: {len(image_set)} images, {image_set.num_objects} objects in {len(paths)} shards, {size:.1f} MB"
        )
    print(f"try: poise train atss_r18_fpn --data {arguments.out}")
    return 0
