"""How much an assignment changes from epoch to epoch: the matching instability of DN-DETR, for every method.

The same few training images are judged after every epoch, without augmentation and in evaluation mode, so that nothing
differs but the weights. An object is known by its image and its number in it. Its churn is the share of its positives
that changed: 1 - (positives of both epochs) / (positives of either). Where every object has one query, the mean over
objects is the share of objects whose query changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.lab.explain import Stage
from poise.lab.statistics import SIZES
from poise.lab.tally import weights_of_objects
from poise.structures import RegionPredictions

Chosen = Tensor  # (P,3) int32 rows: image, object, place of every positive


@dataclass(frozen=True)
class Positives:
    """The positives of a stage on the images of the probe."""

    chosen: Chosen
    objects: Tensor  # (O,3) float64 rows: image, object, size (square root of its area in input pixels)


def keeps_places(name: str, stage: Stage) -> bool:
    """Whether a place means the same in two epochs: no proposal does, nor a query made of the truth or of a place."""
    made = name == "denoising" or name.endswith("/queries")
    return not made and not isinstance(stage.predictions, RegionPredictions)


@torch.no_grad()
def positives_of(stage: Stage, first: int = 0) -> Positives:
    """The positives of a batch whose first image is the probe's number ``first``."""
    _, pairs = weights_of_objects(stage)
    if pairs.ndim == 3:
        image, place, number = (pairs & stage.truth.valid[:, None]).nonzero().T
    else:
        image, place = pairs.nonzero().T
        number = stage.index[image, place]
    held, which = stage.truth.valid.nonzero().T
    boxes = stage.truth.boxes[held, which]
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1).sqrt()
    return Positives(
        torch.stack((image + first, number, place), 1).int().cpu(),
        torch.stack((held + first, which, size), 1).double().cpu(),
    )


def together(parts: Sequence[Positives]) -> Positives:
    """The positives of several batches."""
    return Positives(torch.cat([one.chosen for one in parts]), torch.cat([one.objects for one in parts]))


def churn(before: Chosen, now: Positives) -> dict[str, float]:
    """Mean churn of the objects that had a positive in either epoch, and the same of small, medium and large ones."""
    counts: dict[tuple[int, int], list[int]] = {}
    old, new = _by_object(before), _by_object(now.chosen)
    for key in old.keys() | new.keys():
        first, second = old.get(key, set()), new.get(key, set())
        counts[key] = [len(first & second), len(first | second)]
    rows = [(size, counts.get((int(image), int(number)))) for image, number, size in now.objects.tolist()]
    changed = [(size, 1 - both / either) for size, found in rows if found for both, either in [found]]
    groups = {"churn": (0.0, float("inf")), **{f"churn_{name}": ends for name, ends in SIZES.items()}}
    parts = {name: [value for size, value in changed if low <= size < high] for name, (low, high) in groups.items()}
    return {name: sum(values) / len(values) for name, values in parts.items() if values}


def _by_object(chosen: Chosen) -> Mapping[tuple[int, int], set[int]]:
    found: dict[tuple[int, int], set[int]] = {}
    for image, number, place in chosen.tolist():
        found.setdefault((image, number), set()).add(place)
    return found
