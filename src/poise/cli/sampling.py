"""``poise sampling``: which negatives the samplers of a two-stage model choose, as a table and a figure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


@dataclass(frozen=True)
class Arguments:
    """Compare random with IoU-balanced sampling on real images: poise sampling CHECKPOINT --data PATH."""

    checkpoint: Positional[str]
    """A trained two-stage model: a model file (best.pt, last.pt) or a run folder."""
    data: Path
    """The data set: a folder or file in COCO, YOLO, Pascal VOC or LVIS layout."""
    split: str = "train"
    """Which part of it."""
    images: int = 64
    """How many images are looked at, from the first on."""
    regions: int = 512
    """How many regions are sampled an image. Where an image has no more negatives than wanted, all are taken."""
    batch_size: int = 4
    """Images that go through the network at once."""
    seed: int = 0
    """Of the samplers' choice."""
    out: Path = Path("sampling.png")
    """Where the figure goes."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto takes a GPU where there is one."""
    on_bad_data: Literal["error", "skip"] = "error"
    """Faulty records (poise check lists them): stop, or leave them out."""
    json: bool = False
    """Print the shares as JSON."""


def run(arguments: Arguments) -> int:
    """Print the shares and write the figure."""
    import torch

    from poise.api import Detector
    from poise.data import evaluation_loader, open_data
    from poise.lab.sampling import draw_negatives, libra_samplers, sampled_negatives

    if min(arguments.images, arguments.batch_size) < 1:
        raise ValueError(f"--images {arguments.images} --batch-size {arguments.batch_size}: both must be at least 1")
    detector = Detector(arguments.checkpoint, arguments.device)
    image_set = open_data(arguments.data, arguments.split, on_bad_data=arguments.on_bad_data)
    loader = evaluation_loader(image_set, detector.model.preprocess, batch_size=arguments.batch_size)
    batches = islice(loader, -(-arguments.images // arguments.batch_size))
    with torch.random.fork_rng():
        samplers = libra_samplers(arguments.regions)
        negatives = sampled_negatives(detector.model.network.eval(), batches, samplers, arguments.seed)
    path = draw_negatives(negatives, arguments.out)
    if arguments.json:
        print(json.dumps({"images": negatives.images, "below_0.05": negatives.below(), "shares": negatives.shares()}))
        return 0
    print(negatives.table())
    print(f"{negatives.images} images; figure: {path}")
    return 0
