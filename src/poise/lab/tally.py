"""The supervision of a training step in a few sums, cheap enough to be taken while a model trains.

Everything is computed for the whole batch at once, on the device where the step ran; the sums of several batches or
processes are added. Sizes are square roots of areas in pixels of the network's input, after augmentation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from poise import boxes as geometry
from poise.lab.explain import Stage
from poise.lab.statistics import SIZES
from poise.lab.views import SHARE
from poise.pairwise.chunks import object_chunks

BINS = 10  # of the IoU of negatives with the nearest object
Sums = dict[str, float]


@torch.no_grad()
def tally(stage: Stage) -> Sums:
    """What one stage told the places of a batch, as sums that can be added."""
    weight, chosen = weights_of_objects(stage)
    valid = stage.truth.valid
    claimed = stage.index >= 0 if stage.weights.pairs is None else (chosen & valid[:, None]).any(2)
    positives = chosen.sum(1) if stage.weights.pairs is not None else _by_object(stage, claimed.double())
    total = weight.sum(1) if stage.weights.pairs is not None else _by_object(stage, weight)
    sums = {**_objects(stage, positives.double(), _entropy(stage, weight, total), total), **_levels(stage, claimed)}
    sums |= {**_moments(stage, claimed), **_negatives(stage, stage.weighed & ~claimed)}
    values = torch.stack([value.double() for value in sums.values()]).tolist()
    return dict(zip(sums, values, strict=True))


def weights_of_objects(stage: Stage) -> tuple[Tensor, Tensor]:
    """Positive weights and which of them make a positive: (B,N,G) of soft assignments, else (B,N) of each place."""
    pairs = stage.weights.pairs
    if pairs is None:
        return stage.positive.double(), stage.index >= 0
    return pairs.double(), (pairs > 0) & (pairs >= SHARE * pairs.amax(1, keepdim=True))


def added(parts: Iterable[Sums]) -> Sums:
    """The sums of several batches or processes together."""
    total: Sums = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    return total


def numbers(sums: Mapping[str, float]) -> dict[str, float]:
    """What the sums amount to; numbers that nothing was there for are left out.

    ``positives`` of an object (also ``_small``, ``_medium``, ``_large`` and ``_stride_S``), ``without_positive``
    (share of the objects), ``entropy`` of an object's weights in nats, ``score_iou_correlation`` of positives, and of
    negatives ``negatives_T`` and ``negative_weight_T``, the shares with an IoU from T to T + 0.1.
    """
    found = {"objects": sums["objects"]}
    for name in ("", *(f"_{size}" for size in SIZES)):
        if sums[f"objects{name}"]:
            found[f"positives{name}"] = sums[f"positives{name}"] / sums[f"objects{name}"]
    if sums["objects"]:
        for name in (name for name in sums if name.startswith("stride_")):
            found[f"positives_{name}"] = sums[name] / sums["objects"]
        found["without_positive"] = sums["without"] / sums["objects"]
    if sums["weighted"]:
        found["entropy"] = sums["entropy"] / sums["weighted"]
    correlation = _correlation(sums)
    if correlation is not None:
        found["score_iou_correlation"] = correlation
    for kind in ("negatives", "negative_weight"):
        total = sum(sums[f"{kind}_{i / BINS:.1f}"] for i in range(BINS))
        if total:
            found |= {f"{kind}_{i / BINS:.1f}": sums[f"{kind}_{i / BINS:.1f}"] / total for i in range(BINS)}
    return found


def _by_object(stage: Stage, values: Tensor) -> Tensor:
    """Values of places (B,N) summed over the places of each object, (B,G)."""
    empty = values.new_zeros(stage.truth.valid.shape)
    mine = values * (stage.index >= 0)
    return empty.scatter_add(1, stage.index.clamp(min=0), mine)


def _entropy(stage: Stage, weight: Tensor, total: Tensor) -> Tensor:
    """Entropy of how each object's weight is spread over places, (B,G) nats; 0 where one place has all."""
    if stage.weights.pairs is not None:
        share = weight / total.clamp(min=1e-30)[:, None]
        return -torch.xlogy(share, share).sum(1)
    share = weight / total.gather(1, stage.index.clamp(min=0)).clamp(min=1e-30)
    return _by_object(stage, -torch.xlogy(share, share))


def _objects(stage: Stage, positives: Tensor, entropy: Tensor, total: Tensor) -> dict[str, Tensor]:
    truth = stage.truth
    side = (truth.boxes[..., 2:] - truth.boxes[..., :2]).clamp(min=0).prod(2).sqrt()
    sums = {"objects": truth.valid.sum(), "positives": (positives * truth.valid).sum()}
    for name, (low, high) in SIZES.items():
        held = truth.valid & (side >= low) & (side < high)
        sums |= {f"objects_{name}": held.sum(), f"positives_{name}": (positives * held).sum()}
    weighted = truth.valid & (total > 0)
    sums |= {"without": (truth.valid & (positives == 0)).sum()}
    return {**sums, "weighted": weighted.sum(), "entropy": torch.where(weighted, entropy, 0.0).sum()}


def _levels(stage: Stage, claimed: Tensor) -> dict[str, Tensor]:
    """Positive places of each level, by its stride; regions and queries have no levels."""
    sizes = stage.priors.level_sizes
    if stage.free or len(sizes) < 2:
        return {}
    counts = claimed.sum(0).split(sizes)
    strides = stage.priors.strides.cpu()
    starts = torch.tensor((0, *sizes)).cumsum(0)[:-1]
    return {f"stride_{strides[start]:g}": part.sum() for start, part in zip(starts, counts, strict=True)}


def _moments(stage: Stage, claimed: Tensor) -> dict[str, Tensor]:
    """Sums of which the correlation of score and IoU over positives is made."""
    owner = stage.index.clamp(min=0)
    objects = stage.truth.boxes.gather(1, owner[..., None].expand(-1, -1, 4))
    overlap = geometry.iou(stage.boxes, objects).nan_to_num().double()
    scores = stage.predictions.scores()
    labels = stage.truth.labels.gather(1, owner).clamp(max=scores.shape[2] - 1)
    score = scores.gather(2, labels[..., None])[..., 0].nan_to_num().double()
    products = {"n": overlap * 0 + 1, "s": score, "i": overlap, "ss": score**2, "ii": overlap**2, "si": score * overlap}
    return {f"pair_{name}": torch.where(claimed, value, 0.0).sum() for name, value in products.items()}


def _correlation(sums: Mapping[str, float]) -> float | None:
    n, s, i, ss, ii, si = (sums[f"pair_{name}"] for name in ("n", "s", "i", "ss", "ii", "si"))
    first, second = n * ss - s * s, n * ii - i * i
    known = n >= 3 and first > 1e-12 * n * ss and second > 1e-12 * n * ii  # else all are alike, but for rounding
    return (n * si - s * i) / (first * second) ** 0.5 if known else None


def _negatives(stage: Stage, others: Tensor) -> dict[str, Tensor]:
    """Places that are negatives and their weight, by IoU with the nearest object (of regions the prior's)."""
    boxes = stage.priors.boxes.expand_as(stage.boxes) if stage.free else stage.boxes
    best = boxes.new_zeros(others.shape)
    valid = stage.truth.valid
    for part in object_chunks(4 * len(boxes), boxes.shape[1], valid.shape[1]):
        overlap = geometry.iou(boxes[:, :, None], stage.truth.boxes[:, None, part]).nan_to_num()
        best = torch.maximum(best, torch.where(valid[:, None, part], overlap, 0.0).amax(2))
    place = (best * BINS).long().clamp(0, BINS - 1)
    weight = stage.negative.double()
    sums = {}
    for i in range(BINS):
        mine = others & (place == i)
        sums[f"negatives_{i / BINS:.1f}"] = mine.sum()
        sums[f"negative_weight_{i / BINS:.1f}"] = torch.where(mine, weight, 0.0).sum()
    return sums
