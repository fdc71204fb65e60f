"""Assigners written as the originals run them: image by image and object by object, in plain PyTorch.

``benchmarks/assignment.py`` compares the batched assigners of poise with them. Each takes one image and returns, for
hard assigners, the object of every prior (N,), -1 for none; for soft ones the weights of every pair (N,M).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Image:
    """One image: N priors, C classes, M objects."""

    priors: Tensor  # (N,4)
    strides: Tensor  # (N,)
    level_sizes: tuple[int, ...]
    logits: Tensor  # (N,C)
    boxes: Tensor  # (N,4)
    quality: Tensor  # (N,) logits
    objects: Tensor  # (M,4)
    labels: Tensor  # (M,)

    @property
    def centers(self) -> Tensor:
        return (self.priors[:, :2] + self.priors[:, 2:]) / 2

    @property
    def scores(self) -> Tensor:
        return self.logits.sigmoid() * self.quality.sigmoid()[:, None]

    def unassigned(self) -> Tensor:
        return torch.full((len(self.priors),), -1, dtype=torch.int64)


def iou(boxes: Tensor, box: Tensor) -> Tensor:
    """(N,4) with one box, (N,)."""
    low, high = torch.maximum(boxes[:, :2], box[:2]), torch.minimum(boxes[:, 2:], box[2:])
    intersection = (high - low).clamp(min=0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return intersection / (areas - intersection).clamp(min=1e-6)


def giou(boxes: Tensor, box: Tensor) -> Tensor:
    low, high = torch.maximum(boxes[:, :2], box[:2]), torch.minimum(boxes[:, 2:], box[2:])
    intersection = (high - low).clamp(min=0).prod(1)
    union = ((boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod() - intersection).clamp(min=1e-6)
    enclosing = (torch.maximum(boxes[:, 2:], box[2:]) - torch.minimum(boxes[:, :2], box[:2])).clamp(min=0).prod(1)
    return intersection / union - (enclosing - union) / enclosing.clamp(min=1e-6)


def distance_inside(centers: Tensor, box: Tensor) -> Tensor:
    """Distance of (N,2) points to the nearest side of one box, positive inside."""
    return torch.cat((centers - box[:2], box[2:] - centers), 1).amin(1)


def center_of(box: Tensor) -> Tensor:
    return (box[:2] + box[2:]) / 2


def max_iou(image: Image) -> Tensor:
    owner, best, table = image.unassigned(), torch.zeros(len(image.priors)), []
    for g, box in enumerate(image.objects):
        overlap = iou(image.priors, box)
        table.append(overlap)
        better = overlap > best
        best = torch.where(better, overlap, best)
        owner = torch.where(better, g, owner)
    owner = torch.where(best >= 0.5, owner, -1)
    for g, overlap in enumerate(table):
        highest = overlap.max()
        if highest > 0:
            owner[overlap == highest] = g
    return owner


def atss(image: Image) -> Tensor:
    owner, best = image.unassigned(), torch.full((len(image.priors),), -1.0)
    for g, box in enumerate(image.objects):
        distance = (image.centers - center_of(box)).pow(2).sum(1)
        candidates, start = [], 0
        for size in image.level_sizes:
            near = distance[start : start + size].topk(min(9, size), largest=False).indices
            candidates.append(near + start)
            start += size
        index = torch.cat(candidates)
        overlap = iou(image.priors[index], box)
        threshold = overlap.mean() + overlap.std()
        taken = (overlap >= threshold) & (distance_inside(image.centers[index], box) > 0.01) & (overlap > best[index])
        owner[index[taken]], best[index[taken]] = g, overlap[taken]
    return owner


def center_region(image: Image) -> Tensor:
    bounds = [-1.0, 64.0, 128.0, 256.0, 512.0, 1e8]
    low = torch.cat([torch.full((size,), bounds[i]) for i, size in enumerate(image.level_sizes)])
    high = torch.cat([torch.full((size,), bounds[i + 1]) for i, size in enumerate(image.level_sizes)])
    owner, smallest = image.unassigned(), torch.full((len(image.priors),), torch.inf)
    for g, box in enumerate(image.objects):
        sides = torch.cat((image.centers - box[:2], box[2:] - image.centers), 1)
        farthest = sides.amax(1)
        radius_px = 1.5 * image.strides[:, None]
        near = torch.cat(
            (torch.maximum(center_of(box) - radius_px, box[:2]), torch.minimum(center_of(box) + radius_px, box[2:])), 1
        )
        inside = torch.cat((image.centers - near[:, :2], near[:, 2:] - image.centers), 1).amin(1) > 0
        size = (box[2:] - box[:2]).prod()
        taken = inside & (farthest >= low) & (farthest <= high) & (size < smallest)
        owner[taken], smallest[taken] = g, size
    return owner


def fovea(image: Image) -> Tensor:
    ranges = ((1, 64), (32, 128), (64, 256), (128, 512), (256, 2048))
    owner, smallest, start = image.unassigned(), torch.full((len(image.priors),), torch.inf), 0
    for (low, high), size in zip(ranges, image.level_sizes, strict=True):
        stride = float(image.strides[start])
        cells = (image.centers[start : start + size] / stride).floor()
        last = cells.amax(0)
        for g, box in enumerate(image.objects):
            side = (box[2:] - box[:2]).prod().sqrt()
            if not low <= side <= high:
                continue
            half = 0.5 * (box[2:] - box[:2]) / stride
            first = (box[:2] / stride + 0.6 * half - 0.5).ceil().clamp(min=0).minimum(last)
            final = (box[:2] / stride + 1.4 * half - 0.5).floor().clamp(min=0).minimum(last)
            taken = ((cells >= first) & (cells <= final)).all(1) & (side < smallest[start : start + size])
            priors = taken.nonzero().squeeze(1) + start
            owner[priors], smallest[priors] = g, side
        start += size
    return owner


def task_aligned(image: Image) -> Tensor:
    owner, best = image.unassigned(), torch.full((len(image.priors),), -1.0)
    scores = image.scores
    for g, box in enumerate(image.objects):
        overlap = iou(image.boxes, box)
        metric = scores[:, image.labels[g]] * overlap**6
        index = metric.topk(13).indices
        taken = (
            (metric[index] > 0) & (distance_inside(image.centers[index], box) > 0.01) & (overlap[index] > best[index])
        )
        owner[index[taken]], best[index[taken]] = g, overlap[index[taken]]
    return owner


def _dynamic_k(cost: Tensor, overlap: Tensor, priors: Tensor, image: Image, topk: int) -> Tensor:
    """Matching of ``priors`` (V,) by costs (V,M): each object takes k of the cheapest (dynamic k)."""
    owner, taken = image.unassigned(), torch.zeros_like(cost, dtype=torch.bool)
    for g in range(cost.shape[1]):
        number = max(1, int(overlap[:, g].topk(min(topk, len(priors))).values.sum()))
        taken[cost[:, g].topk(min(number, len(priors)), largest=False).indices, g] = True
    several = taken.sum(1) > 1
    taken[several] = functional.one_hot(cost[several].argmin(1), cost.shape[1]).bool()
    matched = taken.any(1)
    owner[priors[matched]] = taken[matched].int().argmax(1)
    return owner


def sim_ota(image: Image) -> Tensor:
    inside, central = [], []
    for box in image.objects:
        radius_px = 2.5 * image.strides[:, None]
        offset = (image.centers - center_of(box)).abs()
        inside.append(distance_inside(image.centers, box) > 0)
        central.append((offset < radius_px).all(1))
    within, close = torch.stack(inside, 1), torch.stack(central, 1)
    priors = (within | close).any(1).nonzero().squeeze(1)
    scores, costs, overlaps = image.scores[priors].sqrt(), [], []
    for g, box in enumerate(image.objects):
        overlap = iou(image.boxes[priors], box)
        target = functional.one_hot(image.labels[g], scores.shape[1]).float().expand_as(scores)
        entropy = functional.binary_cross_entropy(scores, target, reduction="none").sum(1)
        far = (~(within[priors, g] & close[priors, g])).float() * 1e5
        costs.append(entropy - 3 * (overlap + 1e-7).log() + far)
        overlaps.append(overlap)
    return _dynamic_k(torch.stack(costs, 1), torch.stack(overlaps, 1), priors, image, 10)


def dynamic_soft_label(image: Image, radius: float | None = None) -> Tensor:
    inside = torch.stack([distance_inside(image.centers, box) > 0 for box in image.objects], 1)
    priors = inside.any(1).nonzero().squeeze(1)
    logits, costs, overlaps = image.logits[priors], [], []
    for g, box in enumerate(image.objects):
        overlap = iou(image.boxes[priors], box)
        soft = functional.one_hot(image.labels[g], logits.shape[1]).float() * overlap[:, None]
        entropy = functional.binary_cross_entropy_with_logits(logits, soft, reduction="none")
        cost = (entropy * (soft - logits.sigmoid()).abs() ** 2).sum(1) - 3 * (overlap + 1e-7).log()
        if radius is not None:
            distance = (image.centers[priors] - center_of(box)).norm(dim=1) / image.strides[priors]
            cost = cost + 10 ** (distance - radius)
        costs.append(cost)
        overlaps.append(overlap)
    return _dynamic_k(torch.stack(costs, 1), torch.stack(overlaps, 1), priors, image, 13)


def dynamic_soft_label_rtmdet(image: Image) -> Tensor:
    return dynamic_soft_label(image, 3.0)


def _focal_cost(image: Image, label: Tensor) -> Tensor:
    target = functional.one_hot(label, image.logits.shape[1]).float().expand_as(image.logits)
    return _focal(image.logits, target).sum(1)


def _focal(logits: Tensor, target: Tensor) -> Tensor:
    probability = logits.sigmoid()
    weight = torch.where(target > 0, 0.25 * (1 - probability) ** 2, 0.75 * probability**2)
    return weight * functional.binary_cross_entropy_with_logits(logits, target, reduction="none")


def ota(image: Image) -> Tensor:
    costs, supplies = [], []
    for g, box in enumerate(image.objects):
        overlap = iou(image.boxes, box)
        near = (distance_inside(image.centers, box) > 0.01) & (
            (image.centers - center_of(box)).abs() < 2.5 * image.strides[:, None]
        ).all(1)
        supplies.append((overlap * near).topk(20).values.sum().floor().clamp(min=1))
        cost = _focal_cost(image, image.labels[g]) - 1.5 * overlap.clamp(min=torch.finfo(torch.float32).eps).log()
        costs.append(torch.where(near | ~near.any(), cost, torch.inf))
    background = _focal(image.logits, torch.zeros_like(image.logits)).sum(1)
    kernel = -torch.stack([*costs, background]) / 0.1
    supply = torch.stack([*supplies, len(background) - torch.stack(supplies).sum()])
    ours, price = torch.zeros(len(kernel)), torch.zeros(kernel.shape[1])
    for _ in range(50):
        price = -torch.logsumexp(kernel + ours[:, None], 0)
        ours = (supply + 1e-8).log() - torch.logsumexp(kernel + price, 1)
    plan = kernel + price
    best = (plan - plan.amax(1, keepdim=True)).argmax(0)
    return torch.where(best < len(image.objects), best, -1)


def paa(image: Image) -> Tensor:
    """As ``max_iou`` above 0.1; of the lowest losses of each object and level, those of the lower normal component."""
    table = torch.stack([iou(image.priors, box) for box in image.objects], 1)
    best, owner = table.max(1)
    owner = torch.where(best >= 0.1, owner, -1)
    for g in range(table.shape[1]):
        highest = table[:, g].max()
        if highest > 0:
            owner[table[:, g] == highest] = g
    result = image.unassigned()
    for g, box in enumerate(image.objects):
        mine = (owner == g).nonzero().squeeze(1)
        target = functional.one_hot(image.labels[g], image.logits.shape[1]).float().expand(len(mine), -1)
        loss = _focal(image.logits[mine], target).sum(1) + 1.3 * (1 - giou(image.boxes[mine], box))
        chosen, values, start = [], [], 0
        for size in image.level_sizes:
            here = ((mine >= start) & (mine < start + size)).nonzero().squeeze(1)
            low = loss[here].topk(min(9, len(here)), largest=False)
            chosen.append(mine[here[low.indices]])
            values.append(low.values)
            start += size
        priors, losses = torch.cat(chosen), torch.cat(values)
        if len(priors) > 1:
            losses, order = losses.sort()
            result[priors[order[: _lower_component(losses)]]] = g
    return result


def _lower_component(losses: Tensor) -> int:
    """The number of positives among ascending losses: those of the lower component, up to the likeliest."""
    values = losses.double() - losses[0]
    weight = torch.full((2, 1), 0.5, dtype=torch.float64)
    mean, variance, before = torch.stack((values[:1], values[-1:])), torch.ones(2, 1, dtype=torch.float64), -torch.inf
    for _ in range(100):
        joint = weight.log() - 0.5 * ((2 * torch.pi * variance).log() + (values - mean) ** 2 / variance)
        total = joint.logsumexp(0)
        share = (joint - total).exp()
        mass = share.sum(1, keepdim=True)
        mean = (share * values).sum(1, keepdim=True) / mass
        variance = (share * (values - mean) ** 2).sum(1, keepdim=True) / mass + 1e-6
        weight = mass / len(values)
        if abs(float(total.mean()) - before) < 1e-3:
            break
        before = float(total.mean())
    joint = weight.log() - 0.5 * ((2 * torch.pi * variance).log() + (values - mean) ** 2 / variance)
    low, likelihood = joint[0] >= joint[1], joint.logsumexp(0)
    if not low.any():
        return 0
    likelihood = torch.where(low, likelihood, -torch.inf)
    return int((likelihood >= likelihood.max() - 1e-4).int().argmax()) + 1


def _center_weight(image: Image, box: Tensor, sigma: float) -> Tensor:
    steps = (image.centers - center_of(box)) / image.strides[:, None]
    return (-(steps**2 / (2 * sigma**2)).sum(1)).exp()


def dual_weighting(image: Image) -> tuple[Tensor, Tensor]:
    return _dual_weighting(image, lambda box: distance_inside(image.centers, box) > 0)


def gcd(boxes: Tensor, box: Tensor) -> Tensor:
    """The similarity exp(-sqrt(D^2)) of (N,4) with one box by the Gaussian combined distance, (N,)."""
    shift = (boxes[:, :2] + boxes[:, 2:]) / 2 - center_of(box)
    sizes, size = boxes[:, 2:] - boxes[:, :2], (box[2:] - box[:2]).clamp(min=1e-6)
    squared = torch.zeros(len(boxes))
    for unit in (sizes, size):
        squared = squared + ((shift / unit) ** 2 + ((sizes - size) / unit) ** 2 / 4).sum(1) / 2
    return (-squared.sqrt()).exp()


def rfla(image: Image) -> Tensor:
    field = {4: 35.0, 8: 91.0, 16: 267.0, 32: 427.0, 64: 491.0, 128: 619.0}
    theoretical = torch.tensor([field[int(stride)] for stride in image.strides])
    owner = image.unassigned()
    for topk, radius in ((3, theoretical / 2), (1, theoretical / 2 * 0.9)):
        stage, best = image.unassigned(), torch.zeros(len(image.priors))
        for g, box in enumerate(image.objects):
            size, shift = (box[2:] - box[:2]).clamp(min=1e-6), image.centers - center_of(box)
            axes = 2 * (radius[:, None] ** 2 + shift**2) / size**2 + (size / (2 * radius[:, None])).log() - 0.5
            value, near = (1 / (1 + axes.sum(1))).topk(topk)
            better = value > best[near]
            stage[near[better]], best[near[better]] = g, value[better]
        owner = torch.where(owner < 0, stage, owner)
    return owner


def rf_assigner(image: Image) -> tuple[Tensor, Tensor]:
    field = {4: 35.0, 8: 91.0, 16: 267.0, 32: 427.0, 64: 491.0, 128: 619.0}
    sides = torch.tensor([field[int(stride)] for stride in image.strides])[:, None]
    fields = [
        torch.cat((image.centers - sides * r / 2, image.centers + sides * r / 2), 1) for r in (0.8, 0.6, 0.4, 0.2)
    ]

    def candidates(box: Tensor) -> Tensor:
        inside = distance_inside(image.centers, box) > 0
        similarity = torch.stack([torch.where(inside, 0.0, gcd(squares, box)) for squares in fields])
        top = similarity.flatten().topk(9).values
        best = similarity.amax(0)
        return inside | (best >= top.mean() + top.std()) & (best >= 0.55) & (best <= 0.85)

    return _dual_weighting(image, candidates)


def _dual_weighting(image: Image, candidates: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    scores, negative, positive = image.scores, torch.ones_like(image.logits), []
    for g, box in enumerate(image.objects):
        inside = candidates(box)
        overlap = torch.where(inside, iou(image.boxes, box), 0.0)
        likelihood = (-5 * (1 - giou(image.boxes, box))).exp()
        consistency = torch.where(inside, scores[:, image.labels[g]] * likelihood, 0.0)
        prior = _center_weight(image, box, 1.11) * inside
        total = ((3 * consistency).exp() * consistency * prior).sum().clamp(min=1e-12)
        positive.append((5 * consistency).exp() * consistency * prior / total)
        if inside.any():
            value = (1 - overlap[inside] ** 2) / (1 - 0.5**2)
            low, high = value.min(), value.max().clamp(max=1)
            normalized = (value - low + 1e-12) / (high - low + 1e-12)
            negative[inside, image.labels[g]] = torch.where(overlap[inside] < 0.5, 1.0, normalized)
    return torch.stack(positive, 1), negative


def auto_assign(image: Image) -> tuple[Tensor, Tensor]:
    scores, positive = image.scores, []
    fit, negative = torch.zeros(len(image.boxes)), torch.ones_like(image.logits)
    for g, box in enumerate(image.objects):
        inside = distance_inside(image.centers, box) > 0
        likelihood = scores[:, image.labels[g]] * (-5 * (1 - giou(image.boxes, box))).exp() * inside
        weight = (3 * likelihood).exp() * _center_weight(image, box, 1.0) * inside
        positive.append(weight / weight.sum().clamp(min=1e-12))
        fit = torch.maximum(fit, iou(image.boxes, box))
    confidence = 1 / (1 - fit).clamp(min=1e-12)
    for g, box in enumerate(image.objects):
        inside = distance_inside(image.centers, box) > 0
        if inside.any():
            value = confidence[inside]
            normalized = (value - value.min() + 1e-12) / (value.max() - value.min() + 1e-12)
            negative[inside, image.labels[g]] = 1 - normalized
    return torch.stack(positive, 1), negative


def free_anchor(image: Image) -> tuple[Tensor, Tensor]:
    """The weights of each object's bag, and the negative weights; box deltas are those of the predicted boxes."""
    scores, found, positive = image.scores, torch.zeros_like(image.logits), []
    anchors, deltas = image.priors, _deltas(image.priors, image.boxes)
    for g, box in enumerate(image.objects):
        bag = iou(anchors, box).topk(50).indices
        target = _deltas(anchors[bag], box.expand(50, -1))
        loss = functional.smooth_l1_loss(deltas[bag], target, reduction="none", beta=0.11).sum(1)
        likelihood = scores[bag, image.labels[g]] * (-0.75 * loss).exp()
        weight = 1 / (1 - likelihood).clamp(min=1e-12)
        column = torch.zeros(len(anchors))
        column[bag] = weight / weight.sum()
        positive.append(column)
        overlap = iou(image.boxes, box)
        highest = overlap.max()
        if highest > 0.6:
            confidence = ((overlap - 0.6) / (highest - 0.6)).clamp(0, 1)
            found[:, image.labels[g]] = torch.maximum(found[:, image.labels[g]], confidence)
    return torch.stack(positive, 1), 1 - found


def _deltas(anchors: Tensor, boxes: Tensor) -> Tensor:
    size, size_of_boxes = anchors[:, 2:] - anchors[:, :2], boxes[:, 2:] - boxes[:, :2]
    shift = (boxes[:, :2] + boxes[:, 2:] - anchors[:, :2] - anchors[:, 2:]) / 2 / size
    return torch.cat((shift / 0.1, (size_of_boxes / size).clamp(min=1e-30).log() / 0.2), 1)


HARD: dict[str, Callable[[Image], Tensor]] = {
    "max_iou": max_iou,
    "atss": atss,
    "center_region": center_region,
    "fovea": fovea,
    "rfla": rfla,
    "sim_ota": sim_ota,
    "ota": ota,
    "task_aligned": task_aligned,
    "dynamic_soft_label": dynamic_soft_label,
    "dynamic_soft_label_rtmdet": dynamic_soft_label_rtmdet,
    "paa": paa,
}
SOFT: dict[str, Callable[[Image], tuple[Tensor, Tensor]]] = {
    "dual_weighting": dual_weighting,
    "rf_assigner": rf_assigner,
    "auto_assign": auto_assign,
    "free_anchor": free_anchor,
}
