"""``poise shard``: write a data set as tar shards with packed annotations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tyro.conf import Positional

from poise.suggestions import plural


@dataclass(frozen=True)
class Arguments:
    """Write a data set as tar shards with packed annotations, which every command accepts as a data set.

    Few large files are faster on network disks, and packed annotations load in a fraction of a second. The image files
    are copied unchanged; training on shards gives the same batches bit by bit. WebDataset can stream the tars.
    """

    data: Positional[Path]
    """The data set."""
    out: Path
    """The folder to write into."""
    split: tuple[str, ...] = ()
    """Splits to write; all of them by default."""
    megabytes: int = 512
    """Approximate size of a shard in megabytes."""
    follow_links: bool = False
    """Read what links in the data folder lead to; otherwise such links are refused."""


def run(arguments: Arguments) -> int:
    """Write the shards and print their size."""
    from rich.progress import Progress

    from poise.data import open_data, splits
    from poise.data.shards import write_shards

    for split in arguments.split or splits(arguments.data, arguments.follow_links):
        image_set = open_data(arguments.data, split, follow_links=arguments.follow_links)
        with Progress(transient=True) as progress:
            bar = progress.add_task(split, total=len(image_set))
            paths = write_shards(image_set, arguments.out, arguments.megabytes, partial(progress.advance, bar))
        size = sum(path.stat().st_size for path in paths) / 1e6
        print(
            f"{split}: {plural(len(image_set), 'image')}, {plural(image_set.num_objects, 'object')} in "
            f"{plural(len(paths), 'shard')}, {size:.1f} MB"
        )
    print(f"try: poise train atss_r18_fpn --data {arguments.out}")
    return 0
