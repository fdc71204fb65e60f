"""Churn: how much an assignment changes between epochs. DN-DETR's instability, defined for every assigner.

The same few training images are assigned after every epoch, without augmentation and in evaluation mode, so that only
the weights differ. An object is identified by its image and its index in it. Its churn is 1 - |A and B| / |A or B|,
where A and B are its positive priors in the two epochs. With one-to-one matching, the mean over objects is the fraction
of objects whose query changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.lab.explain import Stage
from poise.lab.statistics import SIZES
from poise.lab.tally import positive_weights


@dataclass(frozen=True)
class ProbePositives:
    """The positives of a stage on the probe images."""

    rows: Tensor  # (P,3) int32: image, object and prior index of every positive
    objects: Tensor  # (O,3) float64: image, object, size (square root of the area in input pixels)


def has_persistent_priors(name: str, stage: Stage) -> bool:
    """Whether a prior index means the same in two epochs; not for proposals and denoising or auxiliary queries."""
    generated = name == "denoising" or name.endswith("/queries")
    return not generated and stage.predictions.prior_kind != "regions"


@torch.no_grad()
def collect_positives(stage: Stage, first_image: int = 0) -> ProbePositives:
    """The positives of a batch whose first image is probe image ``first_image``."""
    _, assigned = positive_weights(stage)
    if assigned.ndim == 3:
        image, prior, number = (assigned & stage.truth.valid[:, None]).nonzero().T
    else:
        image, prior = assigned.nonzero().T
        number = stage.index[image, prior]
    object_image, object_number = stage.truth.valid.nonzero().T
    boxes = stage.truth.boxes[object_image, object_number]
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1).sqrt()
    return ProbePositives(
        torch.stack((image + first_image, number, prior), 1).int().cpu(),
        torch.stack((object_image + first_image, object_number, size), 1).double().cpu(),
    )


def concatenate_positives(parts: Sequence[ProbePositives]) -> ProbePositives:
    """The positives of several batches."""
    return ProbePositives(torch.cat([one.rows for one in parts]), torch.cat([one.objects for one in parts]))


def churn(before: Tensor, after: ProbePositives) -> dict[str, float]:
    """Mean churn over objects with a positive in either epoch: of all, small, medium and large objects.

    Args:
        before: ``ProbePositives.rows`` of the earlier epoch.
    """
    old, new = _by_object(before), _by_object(after.rows)
    changed: list[tuple[float, float]] = []  # size, churn
    for image, number, size in after.objects.tolist():
        key = int(image), int(number)
        first, second = old.get(key, set()), new.get(key, set())
        if first or second:
            changed.append((size, 1 - len(first & second) / len(first | second)))
    groups = {"churn": (0.0, float("inf")), **{f"churn_{name}": limits for name, limits in SIZES.items()}}
    parts = {name: [value for size, value in changed if low <= size < high] for name, (low, high) in groups.items()}
    return {name: sum(values) / len(values) for name, values in parts.items() if values}


def _by_object(rows: Tensor) -> Mapping[tuple[int, int], set[int]]:
    result: dict[tuple[int, int], set[int]] = {}
    for image, number, prior in rows.tolist():
        result.setdefault((image, number), set()).add(prior)
    return result
