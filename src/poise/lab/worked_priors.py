"""Steps of assigners that compare priors with objects: maximum IoU, ATSS, centers, FoveaBox, RepPoints' points."""

from __future__ import annotations

import torch
from torch import Tensor

from poise.assign import ATSS, CenterRegion, Fovea, MaxIoU
from poise.assign.atss import cover_objects, mean_plus_deviation
from poise.assign.rep_points import FirstBoxOverlap, NearestPoint
from poise.boxes import area, distance_inside, distance_inside_center, pairwise_iof, with_least_sides
from poise.lab.worked_example import Notebook, Outcome
from poise.pairwise import TINY, all_pairs, highest_value_wins, inside, nearest_per_level, only_finite
from poise.similarities import Similarity, similarity_of
from poise.structures import Assignment, Priors, RefinedPredictions


def atss_steps(assigner: ATSS, note: Notebook, own: Assignment) -> Outcome:
    """Candidates, their IoU, thresholds."""
    priors, truth = note.predictions.priors, note.truth
    reachable = priors.within(truth.padded_sizes(assigner.divisor))
    index, usable = nearest_per_level(priors, truth.boxes, assigner.topk, reachable)
    candidate = usable & truth.valid[..., None]
    note.add(
        "candidates", "nearest anchors of each level", f"{assigner.topk} a level, ties to the lowest index", "MK", index
    )
    word = name_of(assigner.similarity)
    overlap = note.add(
        "candidate IoU",
        f"{word} of the candidates",
        f"{word}(a, g)",
        "MK",
        similarity_of(assigner.similarity, priors.boxes[0].float()[index], note.boxes),
    )
    threshold = note.add(
        "threshold",
        "threshold of the object",
        "mean + standard deviation of the candidates' IoU",
        "M",
        mean_plus_deviation(overlap, candidate),
    )
    grown = with_least_sides(note.boxes, assigner.floor)
    centers = distance_inside(priors.centers[0].float()[index], grown) > assigner.inside
    note.add(
        "center inside",
        "center of the candidate inside the object"
        + (f", sides at least {assigner.floor:g} px" * bool(assigner.floor)),
        f"min(l, t, r, b) > {assigner.inside:g} px",
        "MK",
        centers,
    )
    positive = candidate & (overlap >= threshold[..., None]) & centers
    best = highest_value_wins(index, overlap, positive, len(priors.strides))
    before = best
    if assigner.cover:
        best = cover_objects(best, index, overlap, candidate)
    overlap = similarity_of(assigner.similarity, priors.boxes.float()[:, None], note.boxes)
    note.pairs("IoU", f"{word} of anchor and object", f"{word}(a, g)", overlap)
    dense = scatter_mask(index, candidate, note)
    note.pairs("candidate", "one of the object's candidates", "nearest on its level", dense)
    taken = scatter_mask(index, positive, note)
    if assigner.cover:
        number = torch.arange(note.boxes.shape[1])[:, None]
        added = (best.index[:, None] == number) & (best.found & ~before.found)[:, None]
        note.pairs("added", "given to an object without a positive", "its free candidate with the highest IoU", added)
        taken = taken | added
    note.pairs("taken", "positive before conflicts", "IoU ≥ threshold and center inside", taken)
    about = "Candidates are the nearest anchors of each level; positive from mean + standard deviation of their IoU on."
    return Outcome(
        about, dense, taken, best.index, only_finite(note.predictions, best.found), "IoU", ignored=~reachable
    )


def name_of(similarity: Similarity | None) -> str:
    """Return ``IoU``, or the name of the similarity in its place."""
    return "IoU" if similarity is None else type(similarity).__name__


def scatter_mask(index: Tensor, mask: Tensor, note: Notebook) -> Tensor:
    """A mask (1,M,K) of the priors ``index`` as (1,M,N)."""
    full = torch.zeros(1, index.shape[1], note.predictions.logits.shape[1], dtype=torch.int64)
    return full.scatter_reduce(2, index, mask.long(), "amax") > 0


def max_iou_steps(assigner: MaxIoU, note: Notebook, own: Assignment) -> Outcome:
    """IoU with the anchors or proposals."""
    reachable = assigner.reachable(note.predictions.priors, note.truth)
    return _max_iou(assigner, note, own, note.predictions.priors.boxes.float(), reachable, note.predictions.finite())


def first_box_steps(assigner: FirstBoxOverlap, note: Notebook, own: Assignment) -> Outcome:
    """IoU with the initial boxes."""
    assert isinstance(note.predictions, RefinedPredictions)
    reachable, finite = assigner.overlap.reachable(note.predictions.priors, note.truth), note.predictions.finite()
    boxes = torch.where((reachable & finite)[..., None], note.predictions.initial_boxes.float(), 0.0)
    return _max_iou(assigner.overlap, note, own, boxes, reachable, finite)


def _max_iou(
    assigner: MaxIoU, note: Notebook, own: Assignment, boxes: Tensor, reachable: Tensor, finite: Tensor
) -> Outcome:
    valid = note.truth.valid[..., None]
    word = name_of(assigner.similarity)
    overlap = similarity_of(assigner.similarity, boxes[:, None], note.boxes)
    overlap = torch.where(valid & reachable[:, None], overlap, 0.0)
    note.pairs("IoU", f"{word} of prior and object", f"{word}(a, g)", overlap)
    best, index = overlap.max(1)
    note.add("best IoU", "highest IoU of the prior", "max over objects", "N", best)
    above = (overlap == best[:, None]) & (best >= max(assigner.positive, TINY))[:, None] & valid
    forced = torch.zeros_like(above)
    if assigner.low_quality:
        highest = note.add("object's best IoU", "highest IoU of the object", "max over priors", "M", overlap.amax(2))
        forced = (overlap == highest[..., None]) & (overlap >= max(assigner.least, TINY))
        note.pairs("low quality", "prior with the object's highest IoU", f"at least {assigner.least:g}", forced)
    number = torch.arange(overlap.shape[1])[:, None]
    last = torch.where(forced, number, -1).amax(1)
    positive = (best >= max(assigner.positive, TINY)) | (last >= 0)
    index = torch.where(last >= 0, last, index)
    taken = above & (torch.cumsum(above, 1) == 1) | forced
    note.pairs("taken", "positive before conflicts", f"IoU ≥ {assigner.positive:g}, or the object's highest IoU", taken)
    not_negative = best >= assigner.negative
    if assigner.ignore_iof > 0:
        covered = torch.where(note.truth.crowd[:, None], pairwise_iof(boxes, note.truth.boxes), 0.0).amax(2)
        not_negative = not_negative | (covered > assigner.ignore_iof)
    ignored = not_negative & ~positive | ~reachable
    note.add(
        "ignored",
        "neither positive nor negative",
        f"{assigner.negative:g} ≤ IoU < {assigner.positive:g}, or in the padding",
        "N",
        ignored,
    )
    about = f"A prior is positive for the object of its highest IoU from {assigner.positive:g} on, "
    about += f"negative below {assigner.negative:g}."
    rule = "the highest IoU; of objects that claim it as their best prior the last"
    return Outcome(
        about,
        (overlap > 0.1 * overlap.amax(2, keepdim=True)) & (overlap > 0),
        taken,
        index,
        positive & finite,
        "IoU",
        rule=rule,
        ignored=ignored,
    )


def center_region_steps(assigner: CenterRegion, note: Notebook, own: Assignment) -> Outcome:
    """Position, size and level."""
    priors, objects = note.predictions.priors, note.objects
    pairs = all_pairs(objects.valid, torch.ones_like(priors.strides[None], dtype=torch.bool))
    grown = with_least_sides(note.boxes, assigner.floor)
    within = note.pairs(
        "inside", "point inside the object", "min(l, t, r, b) > 0", distance_inside(note.points, grown) > 0
    )
    within = within & objects.valid[..., None]
    (x, y), (x1, y1, x2, y2) = note.points.unbind(-1), note.boxes.unbind(-1)
    farthest = torch.maximum(torch.maximum(x - x1, x2 - x), torch.maximum(y - y1, y2 - y))
    note.pairs("farthest side", "distance to the farthest side, px", "max(l, t, r, b)", farthest)
    low, high = assigner.ranges(priors)
    note.pairs(
        "on level",
        "the level serves the size",
        f"limits {', '.join(f'{one:g}' for one in assigner.limits)} px",
        (farthest >= low) & (farthest <= high),
    )
    if assigner.radius:
        square = distance_inside_center(note.points, note.boxes, assigner.radius * priors.strides)
        note.pairs("near center", "point in the center region", f"within {assigner.radius:g} strides", square > 0)
    taken = within & assigner.fits(priors, objects, pairs)
    sizes = note.add("area", "area of the object, px²", "width · height", "M", area(objects.boxes))
    note.pairs("taken", "positive before conflicts", "all of them", taken)
    smallest, index = torch.where(taken, sizes[..., None], torch.inf).min(1)
    positive = only_finite(note.predictions, smallest < torch.inf)
    about = "A point is positive near the center of an object, on the level that serves the object's size."
    return Outcome(about, within, taken, index, positive, "farthest side", True, "the smallest area")


def fovea_steps(assigner: Fovea, note: Notebook, own: Assignment) -> Outcome:
    """Levels and the cells in the middle of each object."""
    priors, objects, start, parts, serving = note.predictions.priors, note.objects, 0, [], []
    root = note.add(
        "size", "root of the object's area, px", "√(width · height)", "M", area(objects.boxes).clamp(min=0).sqrt()
    )
    cells = (priors.centers[0].float() / priors.strides[:, None] + 0.25).floor()
    for size, (low, high) in zip(priors.level_sizes, assigner.ranges, strict=False):
        level, stride = cells[start : start + size], priors.strides[start]
        serves = objects.valid & (root >= low) & (root <= high)
        shrunk = assigner.shrunk(objects, stride, level.amax(0), serves)
        parts.append((distance_inside(level[None, None], shrunk.boxes[:, :, None]) > 0) & serves[..., None])
        serving.append(serves)
        start += size
    note.add("serves", "level serves the object", "low ≤ size ≤ high", "ML", torch.stack(serving, 2))
    note.pairs(
        "inside",
        "center of the cell inside the object",
        "min(l, t, r, b) > 0",
        distance_inside(note.points, note.boxes) > 0,
    )
    taken = torch.cat(parts, 2)
    note.pairs("taken", "positive before conflicts", f"cell in the middle {assigner.sigma:g} of the object", taken)
    note.pairs("distance", "distance from the object's center, px", "‖center − center‖", _center_distance(note))
    smallest, index = torch.where(taken, root[..., None], torch.inf).min(1)
    positive = only_finite(note.predictions, smallest < torch.inf)
    about = "Cells in the middle of an object are positive, on each level that serves its size."
    return Outcome(about, taken, taken, index, positive, "distance", True, "the smallest area")


def _center_distance(note: Notebook) -> Tensor:
    centers = (note.boxes[..., :2] + note.boxes[..., 2:]) / 2
    return (note.points - centers).square().sum(-1).sqrt()


def nearest_point_steps(assigner: NearestPoint, note: Notebook, own: Assignment) -> Outcome:
    """Distance in sides of the object, on one level."""
    priors, objects = note.predictions.priors, note.objects
    reachable = priors.within(note.truth.padded_sizes(assigner.divisor))
    pairs = all_pairs(objects.valid, reachable & note.predictions.finite())
    distance = pairs.to_dense(assigner.distances(priors, objects.boxes), torch.inf)
    note.pairs("distance", "distance from the center in sides of the object", "infinite on other levels", distance)
    value, nearest = distance.min(2)
    note.add("nearest", "nearest point of the object", "argmin over priors", "M", nearest)
    best = highest_value_wins(nearest[..., None], -value[..., None], value[..., None] < torch.inf, distance.shape[2])
    taken = scatter_mask(nearest[..., None], value[..., None] < torch.inf, note)
    note.pairs("taken", "positive before conflicts", "the nearest point", taken)
    about = "Each object takes the nearest point of the level of its size."
    return Outcome(
        about,
        distance < torch.inf,
        taken,
        best.index,
        best.found,
        "distance",
        True,
        "the closest object",
        ignored=~reachable,
    )


def center_inside(note: Notebook, priors: Priors) -> Tensor:
    """Pairs of objects and priors with their center strictly inside, (1,M,N)."""
    pairs = inside(priors, note.objects)
    return pairs.to_dense(torch.ones_like(pairs.from_priors(priors.strides.view(1, -1)))) > 0
