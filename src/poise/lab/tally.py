"""Sums over the assignment of a training step, cheap enough to compute while a model trains.

Everything is computed for the whole batch at once, on the device of the step. The sums of several batches or processes
can be added. Sizes are square roots of areas in pixels of the network's input, after augmentation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from poise import boxes as geometry
from poise.lab.explain import Stage
from poise.lab.statistics import SIZES
from poise.lab.views import POSITIVE_FRACTION
from poise.pairwise import object_slices

BINS = 10  # of the highest IoU of a negative with an object
Tally = dict[str, float]


@torch.no_grad()
def tally(stage: Stage) -> Tally:
    """Sums over the priors and objects of one stage of a batch."""
    weight, assigned = positive_weights(stage)
    valid = stage.truth.valid
    soft = stage.weights.pairs is not None
    positive = (assigned & valid[:, None]).any(2) if soft else stage.index >= 0
    positives = assigned.sum(1) if soft else _sum_by_object(stage, positive.double())
    total = weight.sum(1) if soft else _sum_by_object(stage, weight)
    sums = {**_objects(stage, positives.double(), _entropy(stage, weight, total), total), **_strides(stage, positive)}
    sums |= {**_moments(stage, positive), **_negatives(stage, stage.in_loss & ~positive)}
    values = torch.stack([value.double() for value in sums.values()]).tolist()
    return dict(zip(sums, values, strict=True))


def positive_weights(stage: Stage) -> tuple[Tensor, Tensor]:
    """Positive weights and mask of positives: (B,N,G) of soft assignments, else (B,N)."""
    pairs = stage.weights.pairs
    if pairs is None:
        return stage.positive.double(), stage.index >= 0
    return pairs.double(), (pairs > 0) & (pairs >= POSITIVE_FRACTION * pairs.amax(1, keepdim=True))


def add_tallies(parts: Iterable[Tally]) -> Tally:
    """Add the sums of several batches or processes."""
    total: Tally = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    return total


def summarize(sums: Mapping[str, float]) -> dict[str, float]:
    """Means and fractions from sums; those with a denominator of zero are left out.

    ``positives`` per object (also ``_small``, ``_medium``, ``_large`` and ``_stride_S``), ``without_positive``
    (fraction of the objects), ``entropy`` of the weights of an object in nats, ``score_iou_correlation`` of positives,
    and ``negatives_T`` and ``negative_weight_T``, the fractions of the number and of the weight of the negatives with
    an IoU from T to T + 0.1.
    """
    summary = {"objects": sums["objects"]}
    for name in ("", *(f"_{size}" for size in SIZES)):
        if sums[f"objects{name}"]:
            summary[f"positives{name}"] = sums[f"positives{name}"] / sums[f"objects{name}"]
    if sums["objects"]:
        for name in (name for name in sums if name.startswith("stride_")):
            summary[f"positives_{name}"] = sums[name] / sums["objects"]
        summary["without_positive"] = sums["without"] / sums["objects"]
    if sums["weighted"]:
        summary["entropy"] = sums["entropy"] / sums["weighted"]
    correlation = _correlation(sums)
    if correlation is not None:
        summary["score_iou_correlation"] = correlation
    for kind in ("negatives", "negative_weight"):
        total = sum(sums[f"{kind}_{i / BINS:.1f}"] for i in range(BINS))
        if total:
            summary |= {f"{kind}_{i / BINS:.1f}": sums[f"{kind}_{i / BINS:.1f}"] / total for i in range(BINS)}
    return summary


def _sum_by_object(stage: Stage, values: Tensor) -> Tensor:
    """Values (B,N) summed over the priors that are assigned to each object, (B,G)."""
    empty = values.new_zeros(stage.truth.valid.shape)
    return empty.scatter_add(1, stage.index.clamp(min=0), values * (stage.index >= 0))


def _entropy(stage: Stage, weight: Tensor, total: Tensor) -> Tensor:
    """Entropy of each object's weights, normalized to a sum of 1, (B,G) in nats."""
    if stage.weights.pairs is not None:
        fraction = weight / total.clamp(min=1e-30)[:, None]
        return -torch.xlogy(fraction, fraction).sum(1)
    fraction = weight / total.gather(1, stage.index.clamp(min=0)).clamp(min=1e-30)
    return _sum_by_object(stage, -torch.xlogy(fraction, fraction))


def _objects(stage: Stage, positives: Tensor, entropy: Tensor, total: Tensor) -> dict[str, Tensor]:
    truth = stage.truth
    side = (truth.boxes[..., 2:] - truth.boxes[..., :2]).clamp(min=0).prod(2).sqrt()
    sums = {"objects": truth.valid.sum(), "positives": (positives * truth.valid).sum()}
    for name, (low, high) in SIZES.items():
        mask = truth.valid & (side >= low) & (side < high)
        sums |= {f"objects_{name}": mask.sum(), f"positives_{name}": (positives * mask).sum()}
    weighted = truth.valid & (total > 0)
    sums |= {"without": (truth.valid & (positives == 0)).sum()}
    return {**sums, "weighted": weighted.sum(), "entropy": torch.where(weighted, entropy, 0.0).sum()}


def _strides(stage: Stage, positive: Tensor) -> dict[str, Tensor]:
    """Number of positives of each level, by its stride; regions and queries have no levels."""
    sizes = stage.priors.level_sizes
    if not stage.on_grid or len(sizes) < 2:
        return {}
    counts = positive.sum(0).split(sizes)
    strides = stage.priors.strides.cpu()
    starts = torch.tensor((0, *sizes)).cumsum(0)[:-1]
    return {f"stride_{strides[start]:g}": part.sum() for start, part in zip(starts, counts, strict=True)}


def _moments(stage: Stage, positive: Tensor) -> dict[str, Tensor]:
    """Moments of score and IoU over positives, for their correlation."""
    index = stage.index.clamp(min=0)
    objects = stage.truth.boxes.gather(1, index[..., None].expand(-1, -1, 4))
    overlap = geometry.iou(stage.boxes, objects).nan_to_num().double()
    scores = stage.predictions.scores()
    labels = stage.truth.labels.gather(1, index).clamp(max=scores.shape[2] - 1)
    score = scores.gather(2, labels[..., None])[..., 0].nan_to_num().double()
    products = {"n": overlap * 0 + 1, "s": score, "i": overlap, "ss": score**2, "ii": overlap**2, "si": score * overlap}
    return {f"pair_{name}": torch.where(positive, value, 0.0).sum() for name, value in products.items()}


def _correlation(sums: Mapping[str, float]) -> float | None:
    n, s, i, ss, ii, si = (sums[f"pair_{name}"] for name in ("n", "s", "i", "ss", "ii", "si"))
    first, second = n * ss - s * s, n * ii - i * i
    defined = n >= 3 and first > 1e-12 * n * ss and second > 1e-12 * n * ii  # else equal up to rounding
    return (n * si - s * i) / (first * second) ** 0.5 if defined else None


def _negatives(stage: Stage, negative: Tensor) -> dict[str, Tensor]:
    """Number and weight of the negatives by highest IoU with an object (of regions and queries that of the prior)."""
    boxes = stage.boxes if stage.on_grid else stage.priors.boxes.expand_as(stage.boxes)
    best = boxes.new_zeros(negative.shape)
    valid = stage.truth.valid
    for part in object_slices(len(boxes), boxes.shape[1], valid.shape[1], planes_alive=4):
        overlap = geometry.iou(boxes[:, :, None], stage.truth.boxes[:, None, part]).nan_to_num()
        best = torch.maximum(best, torch.where(valid[:, None, part], overlap, 0.0).amax(2))
    bin_index = (best * BINS).long().clamp(0, BINS - 1)
    weight = stage.negative.double()
    sums = {}
    for i in range(BINS):
        mask = negative & (bin_index == i)
        sums[f"negatives_{i / BINS:.1f}"] = mask.sum()
        sums[f"negative_weight_{i / BINS:.1f}"] = torch.where(mask, weight, 0.0).sum()
    return sums
