"""``poise demo-data``: write generated detection scenes as a COCO data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


@dataclass(frozen=True)
class Arguments:
    """Write generated scenes of textured shapes, with clutter, crowds and occlusion, as a COCO data set.

    The same settings give the same files on every machine. Existing data of the same settings is kept.
    """

    out: Positional[Path]
    """The folder to make."""
    train: int = 600
    """Images of the training split."""
    val: int = 150
    """Images of the validation split."""
    test: int = 0
    """Images of a test split; 0: none."""
    size: int = 320
    """Longer side of an image in pixels."""
    seed: int = 0
    """Seed of all random numbers."""
    style: Literal["hard", "plain"] = "hard"
    """hard: objects from 8 pixels, crowds, much clutter; plain: larger objects, which are learned quickly."""
    classes: Literal["shapes", "more_shapes"] = "shapes"
    """shapes: eight (disc, ring, star, …); more_shapes: sixteen others (heart, arrow, house, …)."""


def run(arguments: Arguments) -> int:
    """Write the data and print its path."""
    from poise.data.demo import write_demo_data

    write_demo_data(
        arguments.out,
        arguments.train,
        arguments.val,
        arguments.seed,
        size=arguments.size,
        style=arguments.style,
        test=arguments.test,
        classes=arguments.classes,
    )
    test = f", {arguments.test} test images" if arguments.test else ""
    print(f"{arguments.out}: {arguments.train} training and {arguments.val} validation images{test}, COCO layout")
    print(f"try: poise check {arguments.out}   or: poise train atss_r18_fpn --data {arguments.out}")
    return 0
