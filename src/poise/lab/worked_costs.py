"""Steps of assigners that compare pairs: dynamic soft labels, SimOTA, OTA, Hungarian matching and top scores."""

from __future__ import annotations

from functools import reduce
from operator import add

import torch
from torch import Tensor

from poise.assign import OTA, DynamicSoftLabel, Hungarian, SimOTA, TopScores
from poise.assign.dynamic_k import LARGEST, dynamic_k_of, inside_any
from poise.assign.hungarian import cheapest_queries
from poise.assign.ota import LEAST_IOU
from poise.assign.sinkhorn import Routes, Transport
from poise.boxes import distance_inside, iou
from poise.lab.worked_example import Notebook, Outcome
from poise.pairwise import all_pairs, dense_from_mask, only_finite, smallest
from poise.structures import Assignment

FORMULAS = {
    "class cost": {
        DynamicSoftLabel: "Σ_c |y − p|² · BCE(p, y), y = IoU at the object's class, else 0",
        SimOTA: "Σ_c BCE(p, y)",
    },
    "IoU cost": {DynamicSoftLabel: "λ · −ln(IoU + 1e−7)", SimOTA: "λ · −ln(IoU + 1e−7)", OTA: "λ · −ln IoU"},
}


def dynamic_k_steps(assigner: DynamicSoftLabel | SimOTA, note: Notebook, own: Assignment) -> Outcome:
    """Cost matrix, dynamic k, the cheapest priors of each object, and the cheapest object of each prior."""
    predictions, truth, objects = note.predictions.float(), note.truth, note.objects
    soft = isinstance(assigner, DynamicSoftLabel)
    if isinstance(assigner, SimOTA):
        in_box, in_center = assigner.distances(
            predictions.priors, objects, all_pairs(objects.valid, truth.valid[:, :1])
        )
        note.pairs("inside", "prior inside the object", "min(l, t, r, b) > 0", in_box > 0)
        note.pairs("near", "prior near the center", f"within {assigner.radius:g} strides", in_center > 0)
        near = assigner.near_any(predictions.priors, truth)
    else:
        inside = distance_inside(note.points, note.boxes) > 0
        note.pairs("inside", "prior inside the object", "min(l, t, r, b) > 0", inside & truth.valid[..., None])
        near = inside_any(predictions.priors, truth)
    usable = only_finite(predictions, near)
    note.add(
        "usable",
        "priors that can be taken, and finite",
        "inside any object" if soft else "inside or near any",
        "N",
        usable,
    )
    pairs = all_pairs(objects.valid, usable)
    terms, overlap = assigner.cost_terms(predictions, objects, pairs, assigner.class_cost(predictions))
    note.pairs(
        "IoU",
        "IoU of predicted box and object",
        "IoU(b, g)" + (", the soft label" if soft else ""),
        pairs.to_dense(overlap),
    )
    for name, term in terms.items():
        note.pairs(name, _titles(name), _formula(name, assigner), pairs.to_dense(term, torch.inf))
    cost = reduce(add, terms.values()).nan_to_num(LARGEST, LARGEST, -LARGEST)
    total = pairs.to_dense(cost, torch.inf)
    note.pairs("cost", "cost of the pair", " + ".join(terms), total)
    count = min(assigner.topk, max(1, int(usable.sum())))
    best = pairs.to_dense(overlap).topk(count, sorted=True).values
    note.add("best IoU", "highest IoUs of each object", f"the {count} largest", "MK", best)
    dynamic_k = note.add("dynamic k", "number of priors to take", "max(1, ⌊Σ best IoU⌋)", "M", dynamic_k_of(best))
    value, prior = smallest(total, count)
    takes = (value < torch.inf) & (torch.arange(count) < dynamic_k[..., None])
    taken = torch.zeros_like(total, dtype=torch.bool).scatter(2, prior, takes)
    note.pairs("taken", "matching matrix before conflicts", "the k cheapest priors of each object", taken)
    number = note.add("takers", "objects that take the prior", "Σ over objects", "N", taken.sum(1))
    index = torch.where(number > 1, total.argmin(1), taken.int().argmax(1))
    about = "Each object takes its k cheapest priors, k the sum of its best IoUs, rounded down (dynamic k)."
    candidate = pairs.mask.clone()
    return Outcome(about, candidate, taken, index, number > 0, "cost", True, "the cheapest of all objects")


def _titles(name: str) -> str:
    return {
        "class cost": "classification cost",
        "IoU cost": "regression cost",
        "distance cost": "cost of the distance from the center",
        "cost outside": "cost of a prior outside the object or far from its center",
        "L1 cost": "distance of the normalized boxes",
        "GIoU cost": "negative generalized IoU",
    }[name]


def _formula(name: str, assigner: DynamicSoftLabel | SimOTA) -> str:
    if name == "distance cost" and isinstance(assigner, DynamicSoftLabel):
        return f"α^(d − β), α = {assigner.distance_alpha:g}, β = {assigner.distance_beta:g}, d in strides"
    if name == "cost outside":
        return "1e5 where not both inside and near"
    return FORMULAS[name][type(assigner)].replace("λ", f"{assigner.iou_weight:g}")


def ota_steps(assigner: OTA, note: Notebook, own: Assignment) -> Outcome:
    """Supplies, costs, and the transport plan of Sinkhorn's iteration."""
    predictions, objects = note.predictions, note.objects
    usable = predictions.finite()
    boxes = torch.where(usable[..., None], predictions.boxes.float(), 0.0)
    logits = torch.where(usable[..., None], predictions.logits.float(), 0.0)
    pairs = dense_from_mask(_candidate_mask(assigner, note, usable))
    note.pairs("candidate", "inside the object and near its center", f"within {assigner.radius:g} strides", pairs.mask)
    overlap = iou(pairs.from_priors(boxes), pairs.from_objects(objects.boxes))
    note.pairs("IoU", "IoU of predicted box and object", "IoU(b, g)", overlap)
    best = pairs.topk_by_object(overlap, assigner.topk)[0]
    note.add("best IoU", "highest IoUs of each object's candidates", f"the {assigner.topk} largest", "MK", best)
    supply = dynamic_k_of(best) * (objects.valid & usable.any(1, keepdim=True))
    note.add("supply", "positives that the object supplies (dynamic k)", "max(1, ⌊Σ best IoU⌋)", "M", supply)
    pairs = pairs.or_if_empty(usable[:, None] & objects.valid[..., None])
    overlap, class_cost = overlap.clamp(min=LEAST_IOU), assigner.class_cost(logits)
    terms = assigner.cost_terms(objects, pairs, class_cost, overlap)
    note.pairs("class cost", "classification cost", "Σ_c focal loss", pairs.to_dense(terms["class cost"], torch.inf))
    note.pairs(
        "IoU cost",
        "regression cost",
        f"{assigner.iou_weight:g} · −ln IoU",
        pairs.to_dense(terms["IoU cost"], torch.inf),
    )
    cost = reduce(add, terms.values())
    note.pairs("cost", "cost of the pair", "class cost + IoU cost", pairs.to_dense(cost, torch.inf))
    note.add(
        "background cost", "cost of a prior as background", "Σ_c focal loss, all targets 0", "N", class_cost.background
    )
    rest = (usable.shape[1] - supply.sum(1)).clamp(min=0)
    routes = Routes(objects, pairs, cost / assigner.temperature)
    plan = Transport([routes], class_cost.background / assigner.temperature, supply, rest)
    price = plan.prices(assigner.iterations)
    note.add(
        "price", "dual variable of the prior's demand", f"{assigner.iterations} iterations of Sinkhorn", "N", price
    )
    shipment = pairs.from_priors(price) - routes.cost
    share = (shipment - pairs.from_objects(pairs.max_by_object(shipment))).exp()
    note.pairs(
        "plan", "transport plan, of the object's largest shipment", "exp(price − cost / T) / max", pairs.to_dense(share)
    )
    best_object = plan.winners(price)
    index, positive = best_object.index, best_object.found
    taken = (torch.arange(objects.labels.shape[1])[:, None] == index[:, None]) & positive[:, None]
    note.pairs("taken", "the plan's largest share at each prior, the background's included", "argmax", taken)
    about = "The cheapest transport of all objects' positives and of the background to the priors decides."
    return Outcome(about, pairs.mask, taken, index, positive, "plan", False, "the plan has no conflicts")


def _candidate_mask(assigner: OTA, note: Notebook, usable: Tensor) -> Tensor:
    """The candidates of OTA as a mask (B,G,N)."""
    candidates = assigner.candidates(note.predictions.priors, note.objects)
    one = torch.ones_like(candidates.from_priors(note.predictions.priors.strides.view(1, -1)))
    return (candidates.to_dense(one) > 0) & usable[:, None]


def hungarian_steps(assigner: Hungarian, note: Notebook, own: Assignment) -> Outcome:
    """Cost matrix and the cheapest matching."""
    terms, overlap = assigner.cost_terms(note.predictions, note.truth)  # type: ignore[arg-type]  # queries
    score = f" of p · s^{assigner.position_power:g}" if assigner.position_power else ""
    formulas = {
        "class and IoU cost": f"−p · IoU^{assigner.iou_power:g}",
        "class cost": f"{assigner.class_weight:g} · (focal loss as positive − as negative){score}",
        "L1 cost": f"{assigner.box_weight:g} · Σ |b − g|, normalized cxcywh",
        "GIoU cost": f"{assigner.giou_weight:g} · −GIoU(b, g)",
    }
    note.pairs("IoU", "IoU of predicted box and object", "IoU(b, g)", overlap.mT)
    for name, term in terms.items():
        note.pairs(name, _titles(name), formulas[name], term.mT)
    cost = assigner.cost(note.predictions, note.truth)  # type: ignore[arg-type]  # (1,N,M), queries
    note.pairs("cost", "cost of the pair", " + ".join(terms), cost.mT)
    (_, queries, objects), groups = cost.shape, assigner.groups
    split = cost.view(groups, -1, objects)
    query = cheapest_queries(split if assigner.repeats == 1 else split.repeat(1, 1, assigner.repeats))
    taken = torch.zeros(groups, objects, queries // groups, dtype=torch.bool)
    group, slot = (query >= 0).nonzero().unbind(1)
    taken[group, slot % objects, query[group, slot]] = True
    taken = taken.transpose(0, 1).reshape(1, objects, queries)
    note.pairs("taken", "matching matrix", "the least total cost", taken)
    positive, index = taken.any(1), taken.int().argmax(1)
    about = "Every object is matched with one query, so that the sum of the costs is the least."
    if groups > 1 or assigner.repeats > 1:
        about = f"Every object is matched {assigner.repeats} times in each of {groups} groups, at the least total cost."
    candidate = cost.mT.isfinite()
    return Outcome(about, candidate, taken, index, positive, "cost", True, "a matching has no conflicts")


def top_scores_steps(assigner: TopScores, note: Notebook, own: Assignment) -> Outcome:
    """Scores of the pairs, the queries that each object takes, and the object of each query."""
    score, overlap = assigner.scores(note.predictions, note.truth)
    note.pairs("IoU", "IoU of predicted box and object", "IoU(b, g)", overlap)
    alpha, threshold = assigner.alpha, assigner.threshold
    note.pairs("score", "score of the pair", f"{alpha:g} · p + {1 - alpha:g} · IoU", score)
    reached = note.pairs("reached", "score that is high enough", f"score ≥ {threshold:g}", score >= threshold)
    value, query = smallest(-score, min(assigner.topk, score.shape[2]))
    note.add("best queries", "queries with the highest scores", f"the {value.shape[2]} largest", "MK", query)
    formula = f"one of the {assigner.topk} best with a score ≥ {threshold:g}, or the best"
    taken = note.pairs("taken", "queries that the object takes", formula, assigner.taken(score))
    best, index = score.where(taken, -torch.inf).max(1)
    about = f"Each object takes its {assigner.topk} best queries with a score ≥ {threshold:g}, or its best one."
    best_of = torch.zeros_like(taken).scatter(2, query, value < torch.inf)
    return Outcome(about, reached | best_of, taken, index, best > -torch.inf, "score", rule="the highest score")
