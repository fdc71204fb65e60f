"""``poise sampling``: IoU and hardness of the negatives that the samplers of a two-stage model draw."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from poise.cli.arguments import DataPaths, evaluation_images
from poise.suggestions import plural


@dataclass(frozen=True)
class Arguments:
    """Compare random, IoU-balanced and hard example sampling on a data set: poise sampling CHECKPOINT --data PATH."""

    checkpoint: Positional[str]
    """A trained two-stage model: a model file (best.pt, last.pt) or a run folder."""
    data: DataPaths
    """The data set: a folder or file in COCO, YOLO, Pascal VOC or LVIS layout; given several times, they are joined."""
    class_map: dict[str, str | None] = field(default_factory=dict)
    """Other names of classes: car vehicle van vehicle person null. null drops a class, ignore makes its objects regions
    to ignore. By default as in the training of the model."""
    split: str | None = None
    """Split of the data set; by default train, else val, else test, else the only split."""
    images: int = 64
    """Number of images, from the first on."""
    regions: int = 512
    """Number of regions sampled per image. All negatives are taken where an image has fewer than wanted."""
    batch_size: int = 4
    """Images per forward pass."""
    seed: int = 0
    """Seed of the samplers."""
    out: Path = Path("sampling.png")
    """The figure."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto takes a GPU where there is one."""
    on_bad_data: Literal["error", "skip"] = "error"
    """Faulty records (poise check lists them): stop, or leave them out."""
    follow_links: bool = False
    """Read what links in the data folder lead to; otherwise such links are refused."""
    json: bool = False
    """Print the fractions as JSON."""


def run(arguments: Arguments) -> int:
    """Print the fractions and write the figure."""
    import torch

    from poise.api import Detector
    from poise.data import evaluation_loader
    from poise.lab.sampling import draw_negatives, libra_samplers, sampled_negatives

    if min(arguments.images, arguments.batch_size) < 1:
        raise ValueError(f"--images {arguments.images} --batch-size {arguments.batch_size}: both must be at least 1")
    detector = Detector(arguments.checkpoint, arguments.device)
    image_set, note = evaluation_images(arguments, None, detector.model.class_map, ("train", "val", "test"))
    loader = evaluation_loader(image_set, detector.model.preprocess, batch_size=arguments.batch_size)
    batches = islice(loader, -(-arguments.images // arguments.batch_size))
    with torch.random.fork_rng():
        samplers = libra_samplers(arguments.regions)
        negatives = sampled_negatives(detector.model.network.eval(), batches, samplers, arguments.seed)
    path = draw_negatives(negatives, arguments.out)
    if arguments.json:
        numbers = {"below_0.05": negatives.fraction_below(), "fractions": negatives.fractions()}
        numbers["hard"] = negatives.hard_fractions()
        print(json.dumps({"images": negatives.images, **numbers}))
        return 0
    print(negatives.table())
    print(f"\n{negatives.hard_table()}")
    if note:
        print(f"note: {note}")
    print(f"{plural(negatives.images, 'image')}; figure: {path}")
    return 0
