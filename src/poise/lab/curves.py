"""Curves of two functions: balanced L1 with its gradient, and DW's probability of being a negative.

They are computed from the losses and the assigner that train models (figure 5 of Libra R-CNN's article, Pang et al.
2019; figure 3 of DW's, Li et al. 2022).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from poise import losses
from poise.assign.dual_weighting import LinearIoU, NormalizedIoU
from poise.lab.measurement_figures import new_figure, save_figure
from poise.pairwise import Objects, from_mask
from poise.structures import GroundTruth

MAX_ERROR = 2.0  # of the box losses


@dataclass(frozen=True)
class LossCurve:
    """A box loss over the error, and its gradient, (P,) each."""

    error: Tensor
    loss: Tensor
    gradient: Tensor


def box_loss_curves(
    alphas: Sequence[float], gamma: float, beta: float, smooth_beta: float = 1.0, *, points: int = 401
) -> dict[str, LossCurve]:
    """Compute smooth L1, and balanced L1 for each alpha, with gradients by automatic differentiation."""
    functions: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        f"smooth L1, beta {smooth_beta:g}": partial(losses.smooth_l1, beta=smooth_beta)
    }
    for alpha in alphas:
        name = f"balanced L1, alpha {alpha:g}"
        functions[name] = partial(losses.balanced_l1, alpha=alpha, gamma=gamma, beta=beta)
    curves = {}
    for name, function in functions.items():
        error = torch.linspace(0, MAX_ERROR, points, dtype=torch.float64)[1:].requires_grad_()
        loss = function(error, torch.zeros_like(error))
        (gradient,) = torch.autograd.grad(loss.sum(), error)
        curves[name] = LossCurve(error.detach(), loss.detach(), gradient)
    return curves


def negative_probability_curves(
    gammas: Sequence[float], best: Sequence[float], points: int = 201
) -> dict[str, tuple[Tensor, Tensor]]:
    """Compute IoU and probability of being a negative, of the article's form for each gamma1 and of the code's.

    Args:
        best: highest IoU of an object's priors, on which the code's form depends; its gamma1 is 2.
    """
    curves = {}
    for gamma in gammas:
        overlap = torch.linspace(0, 1, points)
        curves[f"article, gamma1 {gamma:g}"] = overlap, _probability(LinearIoU(gamma), overlap)
    for highest in best:
        overlap = torch.linspace(0, highest, points)
        curves[f"code, best IoU {highest:g}"] = overlap, _probability(NormalizedIoU(), overlap)
    return curves


def _probability(function: LinearIoU | NormalizedIoU, overlap: Tensor) -> Tensor:
    """The function's values for the priors of one object."""
    pairs = from_mask(torch.ones(1, 1, len(overlap), dtype=torch.bool))
    truth = GroundTruth.collate([{"boxes": torch.zeros(1, 4), "labels": torch.zeros(1, dtype=torch.int64)}], [(1, 1)])
    objects = Objects(truth.boxes, truth.labels, truth.valid, slice(0, 1))
    return pairs.to_dense(function(pairs.from_dense(overlap[None, None]), pairs, objects))[0, 0]


def draw_box_losses(curves: Mapping[str, LossCurve], path: str | os.PathLike[str], title: str) -> Path:
    """Draw gradients and losses over the error."""
    figure = new_figure(9.6, 4.0)
    left, right = figure.subplots(1, 2)
    for k, (name, one) in enumerate(curves.items()):
        style = {"color": "0.35", "linestyle": "--"} if name.startswith("smooth") else {"color": f"C{k - 1}"}
        left.plot(one.error, one.gradient, label=name, **style)
        right.plot(one.error, one.loss, label=name, **style)
    left.set(xlabel="error of a box offset", ylabel="gradient", xlim=(0, MAX_ERROR))
    right.set(xlabel="error of a box offset", ylabel="loss", xlim=(0, MAX_ERROR))
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.92")
    right.legend(fontsize=8, frameon=False, loc="upper left")
    return save_figure(figure, path, title)


def draw_negative_probability(
    curves: Mapping[str, tuple[Tensor, Tensor]], path: str | os.PathLike[str], title: str
) -> Path:
    """Draw the article's form and the code's in a panel each."""
    figure = new_figure(9.6, 3.8)
    panels = figure.subplots(1, 2, sharey=True)
    forms = {"article": "article: 1 at 0.5, 0 at 0.95", "code": "code: 0 at the best IoU of the object"}
    for axes, (form, title_of_form) in zip(panels, forms.items(), strict=True):
        for name, (overlap, probability) in curves.items():
            if name.startswith(form):
                axes.plot(overlap, probability, label=name.partition(", ")[2])
        axes.set(xlabel="IoU of the predicted box", xlim=(0.4, 1), ylim=(-0.02, 1.05))
        axes.set_title(title_of_form, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.92")
        axes.legend(fontsize=8, frameon=False)
    panels[0].set_ylabel("probability of being a negative")
    return save_figure(figure, path, title)


def curve_rows(
    box_losses: Mapping[str, LossCurve], probabilities: Mapping[str, tuple[Tensor, Tensor]]
) -> Iterator[dict[str, str | float]]:
    """All points as rows of a table: figure, curve, x, y."""
    for name, one in box_losses.items():
        for quantity in ("loss", "gradient"):
            for x, y in zip(one.error.tolist(), vars(one)[quantity].tolist(), strict=True):
                yield {"figure": quantity, "curve": name, "x": x, "y": y}
    for name, (overlap, probability) in probabilities.items():
        for x, y in zip(overlap.tolist(), probability.tolist(), strict=True):
            yield {"figure": "negative probability", "curve": name, "x": x, "y": y}
