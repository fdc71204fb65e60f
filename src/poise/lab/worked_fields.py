"""Steps of RFLA: receptive fields as Gaussians."""

from __future__ import annotations

import torch

from poise.assign import RFLA
from poise.assign.receptive_field import receptive_fields
from poise.lab.worked_example import Notebook, Outcome
from poise.lab.worked_priors import scatter_mask
from poise.pairwise import highest_value_wins, only_finite
from poise.structures import Assignment


def rfla_steps(assigner: RFLA, note: Notebook, own: Assignment) -> Outcome:
    """Divergence, value and candidates of both stages."""
    priors, truth = note.predictions.priors, note.truth
    reachable = priors.within(truth.padded_sizes(assigner.divisor))
    radius = receptive_fields(priors.strides)[None] / 2
    note.add(
        "radius", "effective radius of the prior's receptive field, px", "half of the theoretical field", "N", radius
    )
    divergence = assigner.divergence(priors, truth.boxes).clamp(min=0)
    note.pairs("divergence", "divergence of field and object", "KL(field ‖ object)", divergence)
    value = note.pairs("value", "receptive field distance", "1 / (1 + KL)", 1 / (1 + divergence))
    winners, masks = [], []
    for name, topk, decay in (("first", assigner.topk, 1.0), ("second", 1, assigner.decay)):
        values, index = assigner.candidates(priors, truth.boxes, reachable, topk=topk * assigner.anchors, decay=decay)
        positive = (values > 0) & truth.valid[..., None]
        about = f"the {topk} highest values" if name == "first" else f"the highest value, radius · {decay:g}"
        note.add(f"{name} stage", f"priors of the {name} stage", about, "MK", index)
        winners.append(highest_value_wins(index, values, positive, reachable.shape[1]))
        masks.append(scatter_mask(index, positive, note))
    first, second = winners
    taken = masks[0] | masks[1] & ~first.found[:, None]
    note.pairs("taken", "positive before conflicts", "first stage, or second stage where no object has taken it", taken)
    index = torch.where(first.found, first.index, second.index)
    positive = only_finite(note.predictions, first.found | second.found)
    about = "Each object takes the priors whose receptive fields resemble it most, whatever their positions."
    return Outcome(
        about,
        value > 0,
        taken,
        index,
        positive,
        "value",
        rule="the first stage, then the highest value",
        ignored=~reachable,
    )
