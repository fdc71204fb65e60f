"""Steps of assigners that compare scores, losses and likelihoods: task-aligned, PAA, DW, AutoAssign, FreeAnchor."""

from __future__ import annotations

import torch
from torch import Tensor

from poise.assign import PAA, AutoAssign, DualWeighting, FreeAnchor, TaskAligned
from poise.assign.dual_weighting import Candidates, of_pairs
from poise.assign.mixture import fit_mixture, low_component
from poise.assign.paa import EQUAL
from poise.assign.rf_assigner import ReceptiveFieldCandidates
from poise.assign.task_aligned import kept_candidates, power, quality_of
from poise.boxes import distance_inside, giou, iou, iou_and_giou, with_least_sides
from poise.lab.worked_example import Notebook, Outcome
from poise.lab.worked_priors import center_inside, name_of, scatter_mask
from poise.pairwise import TINY, CompactPriors, dense_from_mask, highest_value_wins, only_finite
from poise.similarities import similarity_of
from poise.structures import Assignment, PairWeights


def task_aligned_steps(assigner: TaskAligned, note: Notebook, own: Assignment) -> Outcome:
    """Alignment metric and its largest values."""
    predictions, truth, objects = note.predictions, note.truth, note.objects
    priors = predictions.priors
    reachable = priors.within(truth.padded_sizes(assigner.divisor) if assigner.divisor else truth.sizes + torch.inf)
    pairs = dense_from_mask(objects.valid[..., None] & (reachable & predictions.finite())[:, None])
    score = note.pairs(
        "score", "score of the object's class", "p", pairs.to_dense(pairs.class_scores(predictions, objects.labels))
    )
    word = name_of(assigner.similarity)
    overlap = note.pairs(
        "IoU",
        f"{word} of predicted box and object",
        f"{word}(b, g)",
        pairs.to_dense(similarity_of(assigner.similarity, note.predicted, note.boxes)),
    )
    factor = power(overlap, assigner.beta) if assigner.beta else torch.ones_like(overlap)
    metric = pairs.to_dense(power(score, assigner.alpha) * factor)
    note.pairs("metric", "alignment metric", f"p^{assigner.alpha:g} · {word}^{assigner.beta:g}", metric)
    value, index = pairs.topk_by_object(metric, assigner.topk)
    note.add("candidates", "priors with the highest metric", f"the {assigner.topk} largest", "MK", index)
    grown = with_least_sides(note.boxes, assigner.floor)
    centers = distance_inside(priors.centers[0].float()[index], grown) > assigner.inside
    note.add(
        "center inside",
        "center of the candidate inside the object",
        f"min(l, t, r, b) > {assigner.inside:g} px",
        "MK",
        centers,
    )
    at = overlap.gather(2, index)
    positive = (value > 0) & centers & truth.valid[..., None]
    best = highest_value_wins(index, at, positive, metric.shape[2])
    taken = scatter_mask(index, positive, note)
    note.pairs("taken", "positive before conflicts", "a candidate inside the object", taken)
    found = best.found
    if assigner.keep is not None:
        positive = kept_candidates(best, index, positive, assigner.keep)
        kept = scatter_mask(index, positive, note)
        highest = "the highest metric" if assigner.keep == 1 else f"the {assigner.keep} highest metrics"
        note.pairs("kept", "candidates that stay positive", f"{highest} of the object after conflicts", kept)
        found = kept.any(1)
    note.add(
        "quality",
        "normalized metric, the soft label",
        "metric / max · highest IoU of the object",
        "N",
        quality_of(best, index, positive, value, overlap=at),
    )
    about = f"Each object takes the {assigner.topk} priors with the highest metric, of those the ones inside."
    if assigner.keep is not None:
        about += f" After conflicts {assigner.keep} with the highest metric stay positive."
    return Outcome(about, metric > 0, taken, best.index, found, "metric", ignored=~reachable & ~found)


def paa_steps(assigner: PAA, note: Notebook, own: Assignment) -> Outcome:
    """Losses of the candidates and the mixture of two normal distributions."""
    predictions, truth, priors = note.predictions, note.truth, note.predictions.priors
    first = assigner.first.assign(priors.boxes, assigner.first.reachable(priors, truth), truth)
    note.pairs("anchor IoU", "IoU of anchor and object", "IoU(a, g)", iou(priors.boxes.float()[:, None], note.boxes))
    note.add(
        "collected",
        "anchors with an object",
        f"IoU ≥ {assigner.first.positive:g}, or the object's highest IoU",
        "N",
        first.positive,
    )
    compact = CompactPriors.of(only_finite(predictions, first.positive))
    found = compact.take(first)
    loss = assigner.losses(compact.take(predictions), found.labels(truth), found.boxes(truth))
    loss = compact.scatter_back(torch.where(loss.isfinite(), loss, torch.inf), fill=torch.inf)
    note.add(
        "loss", "loss of the anchor for its object", f"focal loss + {assigner.box_weight:g} · (1 − GIoU)", "N", loss
    )
    prior, losses = assigner.candidates(loss, first.index, truth.labels.shape[1], priors.level_sizes)
    note.add("candidates", "lowest losses of each object and level", f"{assigner.topk} a level, ascending", "MK", prior)
    note.add("candidate loss", "their losses", "ascending; infinite where there are fewer", "MK", losses)
    candidate = losses < torch.inf
    low, likelihood = low_component(losses, candidate, assigner.iterations)
    mixture, _ = fit_mixture(losses, candidate, assigner.iterations)
    least = torch.where(candidate, losses, torch.inf).amin(2)
    note.add(
        "component weights",
        "weights of the two normal distributions",
        "expectation and maximization",
        "M2",
        mixture.weight[..., 0],
    )
    note.add("component means", "their means", "loss", "M2", mixture.mean[..., 0] + least[..., None])
    note.add("component variances", "their variances", "loss²", "M2", mixture.variance[..., 0])
    low = low & candidate & (candidate.sum(2, keepdim=True) > 1)
    note.add("low component", "candidate of the lower distribution", "its density there is the larger", "MK", low)
    note.add("log-likelihood", "log-likelihood of the candidate", "ln Σ weight · density", "MK", likelihood)
    at_low = torch.where(low, likelihood, -torch.inf)
    likeliest = low & (at_low >= at_low.amax(2, keepdim=True) - EQUAL)
    positive = low & (likeliest.cumsum(2) - likeliest.long() == 0)
    dense = scatter_mask(prior, candidate, note)
    by_object = torch.where(dense, loss[:, None], torch.inf)
    note.pairs("object loss", "loss of the candidates", "infinite elsewhere", by_object)
    taken = scatter_mask(prior, positive, note)
    note.pairs("taken", "positive", "lower distribution, up to the likeliest", taken)
    about = "Two normal distributions are fitted to the losses of each object's candidates; the lower one is positive."
    rule = "none: each anchor is collected by one object"
    return Outcome(about, dense, taken, first.index, taken.any(1), "object loss", True, rule, ignored=first.ignored)


def dual_weighting_steps(assigner: DualWeighting, note: Notebook, own: PairWeights) -> Outcome:
    """Center prior, consistency, positive and negative weight."""
    predictions, objects, priors = note.predictions, note.objects, note.predictions.priors
    pairs = dense_from_mask(center_inside(note, priors))
    note.pairs("inside", "prior inside the object", "min(l, t, r, b) > 0", pairs.mask)
    if assigner.candidates is not None:
        pairs = dense_from_mask(_candidates(assigner.candidates, note, pairs.mask))
    prior = assigner.center_prior(priors, objects, pairs)
    if assigner.bag_bounds_negatives:
        pairs = pairs.where(pairs.to_dense(prior) > 0)
    note.pairs("center prior", "candidate bag: center prior", "0 outside", pairs.to_dense(prior))
    beta, mu, mu_total = (of_pairs(one, objects, pairs) for one in (assigner.beta, assigner.mu, assigner.mu_total))
    score = pairs.class_scores(predictions, objects.labels)
    overlap, generalized = iou_and_giou(pairs.from_priors(predictions.boxes.float()), pairs.from_objects(objects.boxes))
    note.pairs("score", "score of the object's class", "s", pairs.to_dense(score))
    note.pairs("IoU", "IoU of predicted box and object", "IoU(b, g)", pairs.to_dense(overlap))
    consistency = score * assigner.location(overlap, generalized, beta)
    usable = predictions.finite()[:, None] & consistency.isfinite() & overlap.isfinite()
    overlap, consistency = (torch.where(usable, value, 0.0) for value in (overlap, consistency))
    name = getattr(assigner.location, "__name__", "location")
    note.pairs(
        "consistency", "consistency of score and box, t", f"s · {name}(IoU, GIoU, β)", pairs.to_dense(consistency)
    )
    weight = consistency * prior
    total = pairs.sum_by_object((mu_total * consistency).exp() * weight).clamp(min=TINY)
    note.add("sum", "sum over the object's bag", "Σ exp(µ_total · t) · t · center prior", "M", total)
    weight = pairs.to_dense((mu * consistency).exp() * weight / pairs.from_objects(total))
    note.pairs("positive weight", "w_pos", "exp(µ · t) · t · center prior / sum", weight)
    probability = assigner.negative_probability(overlap, pairs, objects)
    note.pairs(
        "negative probability",
        "P_neg, 1 outside",
        type(assigner.negative_probability).__name__,
        pairs.to_dense(probability, 1.0),
    )
    about = "Each prior inside an object has a positive weight from score and box, and a negative one from its IoU."
    if assigner.candidates is not None:
        about = "Candidates of an object may lie outside of it. " + about.replace("prior inside", "candidate of")
    return _soft(about, note, pairs.mask, weight)


def _candidates(rule: Candidates, note: Notebook, inside: Tensor) -> Tensor:
    """Note the candidates (1,M,N) of each object, and what RFAssigner selects the further ones by."""
    priors, truth = note.predictions.priors, note.truth
    if isinstance(rule, ReceptiveFieldCandidates):
        usable = priors.within(truth.padded_sizes(rule.divisor))[:, None] & ~inside
        similarity, threshold = rule.similarities(priors, truth.boxes, usable)
        ratios = ", ".join(f"{ratio:g}" for ratio in rule.ratios)
        name = "similarity of object and receptive field, 0 inside"
        note.pairs("field similarity", name, f"highest exp(−√D²) of the ratios {ratios}", similarity)
        formula = f"mean + standard deviation of the {rule.topk} highest over all ratios, at least {rule.low:g}"
        note.add("field threshold", "lower bound of the similarity", formula, "M", threshold.clamp(min=rule.low))
    pairs = rule(priors, note.objects, truth)
    mask = pairs.to_dense(torch.ones_like(pairs.from_priors(priors.strides.view(1, -1)))) > 0
    return note.pairs("candidate", "candidate of the object", "inside, or a similar receptive field", mask)


def _soft(about: str, note: Notebook, candidate: Tensor, weight: Tensor) -> Outcome:
    """The outcome of a soft assignment with positive weights (1,M,N)."""
    taken = note.pairs("taken", "in the bag with a positive weight", "w_pos > 0", weight > 0)
    index = weight.argmax(1)
    rule = "none: a prior may count for several objects; the figure shows the heaviest"
    return Outcome(
        about, candidate, taken, index, taken.any(1), "positive weight", rule=rule, weights=weight.transpose(1, 2)
    )


def auto_assign_steps(assigner: AutoAssign, note: Notebook, own: PairWeights) -> Outcome:
    """Center prior, confidence, positive and negative weight."""
    predictions, objects, priors = note.predictions, note.objects, note.predictions.priors
    pairs = dense_from_mask(center_inside(note, priors) & predictions.finite()[:, None])
    note.pairs("inside", "prior inside the object", "min(l, t, r, b) > 0", pairs.mask)
    prior = assigner.center_prior(priors, objects, pairs)
    note.pairs(
        "center prior", "learned center prior G(d) of the class", "exp(−(d − mean)² / 2σ²)", pairs.to_dense(prior)
    )
    score = pairs.class_scores(predictions, objects.labels)
    note.pairs("score", "score of the object's class", "s", pairs.to_dense(score))
    fit = giou(pairs.from_priors(predictions.boxes.float()), pairs.from_objects(objects.boxes))
    note.pairs("IoU", "IoU of predicted box and object", "IoU(b, g)", pairs.to_dense(iou(note.predicted, note.boxes)))
    likelihood = score * (-assigner.beta * (1 - fit)).exp()
    likelihood = torch.where(likelihood.isfinite(), likelihood, 0.0)
    note.pairs(
        "likelihood", "likelihood P of the prior", f"s · exp(−{assigner.beta:g} (1 − GIoU))", pairs.to_dense(likelihood)
    )
    weight = (assigner.sharpness * likelihood).exp() * prior * (likelihood > 0)
    total = pairs.sum_by_object(weight).clamp(min=TINY)
    note.add("sum", "sum over the object's bag", f"Σ exp({assigner.sharpness:g} P) · G(d)", "M", total)
    weight = pairs.to_dense(weight / pairs.from_objects(total))
    note.pairs("positive weight", "w_pos, sums to 1", f"exp({assigner.sharpness:g} P) · G(d) / sum", weight)
    _negative(note, own)
    about = "Every prior inside an object weighs itself by its likelihood and by a learned center prior."
    return _soft(about, note, pairs.mask, weight)


def free_anchor_steps(assigner: FreeAnchor, note: Notebook, own: PairWeights) -> Outcome:
    """Bags, likelihoods, mean-max weights."""
    predictions, truth = note.predictions, note.truth
    note.pairs(
        "anchor IoU",
        "IoU of anchor and object",
        "IoU(a, g)",
        iou(predictions.priors.boxes.float()[:, None], note.boxes),
    )
    bag = assigner.bags(predictions.priors, truth)
    note.add("bag", "anchors of the bag", f"the {bag.shape[2]} highest IoUs", "MK", bag)
    likelihood = assigner.likelihoods(predictions, truth, bag)
    usable = predictions.finite().gather(1, bag.flatten(1)).view_as(bag) & truth.valid[..., None]
    usable = usable & likelihood.isfinite()
    likelihood = torch.where(usable, likelihood, 0.0)
    note.add("likelihood", "likelihood P of the anchor", "s · exp(−box loss)", "MK", likelihood)
    weight = torch.where(usable, 1 / (1 - likelihood).clamp(min=TINY), 0.0)
    weight = weight / weight.sum(2, keepdim=True).clamp(min=TINY)
    note.add("bag weight", "weight in the mean over the bag", "1 / (1 − P), normalized (mean-max)", "MK", weight)
    note.add("bag likelihood", "likelihood of the object's bag", "Σ weight · P", "M", (weight * likelihood).sum(2))
    full = torch.zeros(1, bag.shape[1], predictions.logits.shape[1])
    dense = full.scatter_add(2, bag, weight)
    note.pairs("positive weight", "w_pos", "1 / (1 − P), normalized over the bag", dense)
    note.pairs("IoU", "IoU of predicted box and object", "IoU(b, g)", iou(note.predicted, note.boxes).nan_to_num())
    _negative(note, own)
    about = "The anchors with the highest IoU are the bag of an object; the better an anchor does, the more it counts."
    return _soft(about, note, full.scatter(2, bag, 1.0) > 0, dense)


def _negative(note: Notebook, own: PairWeights) -> None:
    """Note the assigner's negative weight at the class of each object."""
    value = own.negative.transpose(1, 2)[0][note.truth.labels[0].clamp(max=own.negative.shape[2] - 1)]
    note.pairs(
        "negative probability",
        "weight as a negative of the class, before the focal factor",
        "falls with the IoU",
        value[None],
    )
