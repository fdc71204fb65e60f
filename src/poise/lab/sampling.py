"""IoU of the negatives that the samplers of a two-stage detector draw (Pang et al. 2019, figure 3).

Most background regions overlap no object, so a random sample holds few of the hard negatives. IoU-balanced sampling
draws negatives evenly over bins of IoU. Hard negatives are those with the highest classification loss in the second
stage: of each image the fraction ``HARD``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from poise.branches.region import add_ground_truth, assign_regions, only_usable
from poise.detectors.parts import TwoStageNetwork, is_two_stage
from poise.sample import Sampler, libra_article_sampler, libra_sampler, ohem_sampler, random_sampler
from poise.sample.sampler import select_topk
from poise.structures import Assignment, Batch, Progress, value_at
from poise.suggestions import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ALL_NEGATIVES = "all negatives"
HARD = 0.1  # fraction of an image's negatives that count as hard, those with the highest classification loss
EASY_IOU = 0.05  # below it the article finds more than 70 % of random samples, and above it 60 % of the hard negatives
EDGES = (0.0, 0.05, *(i / 10 for i in range(1, 6)))  # IoU bins of tables and figures


def libra_samplers(size: int = 512) -> dict[str, Sampler]:
    """Random sampling, IoU-balanced sampling as in the published code and as described in the article, and OHEM."""
    return {
        "random": random_sampler(size),
        "balanced as published": libra_sampler(size),
        "balanced as in the article": libra_article_sampler(size),
        "OHEM": ohem_sampler(size),
    }


@dataclass(frozen=True)
class SampledNegatives:
    """IoU, in [0, 0.5), of the negatives that each sampler drew with the object that they overlap most."""

    overlaps: dict[str, np.ndarray]  # by sampler: (n,) float32; ``ALL_NEGATIVES``: all candidates
    images: int
    hard: dict[str, np.ndarray] = field(default_factory=dict)  # by sampler: (n,) bool, which of them are hard

    def hard_fractions(self) -> dict[str, dict[str, float]]:
        """Return by sampler how many of its negatives are hard, and how the hard ones divide at IoU 0.05."""
        fractions = {}
        for name, hard in self.hard.items():
            below = float((self.overlaps[name][hard] < EASY_IOU).mean()) if hard.any() else 0.0
            of_sample = float(hard.mean()) if len(hard) else 0.0
            above = 1 - below if hard.any() else 0.0
            fractions[name] = {"of_sample": of_sample, "below_0.05": below, "above_0.05": above}
        return fractions

    def hard_table(self) -> str:
        """The fractions of hard negatives as a Markdown table."""
        lines = ["| hard negatives | of the negatives | of these IoU < 0.05 | IoU >= 0.05 |", "|---|---:|---:|---:|"]
        for name, one in self.hard_fractions().items():
            lines.append(f"| {name} | {' | '.join(f'{100 * value:.1f} %' for value in one.values())} |")
        return "\n".join(lines)

    def fractions(self, edges: tuple[float, ...] = EDGES) -> dict[str, list[float]]:
        """Fraction of each sampler's negatives in each half-open IoU bin."""
        return {
            name: (np.histogram(values, edges)[0] / max(len(values), 1)).tolist()
            for name, values in self.overlaps.items()
        }

    def fraction_below(self, threshold: float = 0.05) -> dict[str, float]:
        """Fraction of each sampler's negatives with an IoU below ``threshold``."""
        return {
            name: float((values < threshold).mean()) if len(values) else 0.0 for name, values in self.overlaps.items()
        }

    def table(self) -> str:
        """The fractions as a Markdown table."""
        titles = [f"{low:.2f} - {high:.2f}" for low, high in pairwise(EDGES)]
        lines = [f"| negatives by IoU | {' | '.join(titles)} |", f"|---|{'---:|' * len(titles)}"]
        for name, fractions in self.fractions().items():
            lines.append(f"| {name} | {' | '.join(f'{100 * value:.1f} %' for value in fractions)} |")
        return "\n".join(lines)


@torch.no_grad()
def sampled_negatives(
    network: nn.Module, batches: Iterable[Batch], samplers: Mapping[str, Sampler] | None = None, seed: int = 0
) -> SampledNegatives:
    """Draw negatives by each sampler from the regions that a network proposes in training.

    Args:
        network: of a two-stage model; a trained one, whose proposals concentrate on objects, is informative.
        batches: images with their objects.
        samplers: by name; by default those of ``libra_samplers()``.
        seed: seed of the samplers.

    Raises:
        ValueError: the network does not propose regions.
    """
    if not is_two_stage(network):
        raise ValueError("only two-stage models sample regions (poise models 'faster_rcnn*' and '*libra_faster_rcnn*')")
    samplers = libra_samplers() if samplers is None else samplers
    generators = {name: torch.Generator().manual_seed(seed) for name in samplers}
    overlaps: dict[str, list[Tensor]] = {ALL_NEGATIVES: [], **{name: [] for name in samplers}}
    hardness: dict[str, list[Tensor]] = {name: [] for name in overlaps}
    images = 0
    for batch in batches:
        assignment, loss = _assignment(network, batch)
        hard = hard_negatives(assignment.negative, loss)
        images += len(batch.pixels)
        overlaps[ALL_NEGATIVES].append(assignment.quality[assignment.negative])
        hardness[ALL_NEGATIVES].append(hard[assignment.negative])
        for name, sampler in samplers.items():
            sample = sampler(assignment, generators[name], loss)
            negative = sample.mask & assignment.negative.gather(1, sample.index)
            overlaps[name].append(assignment.quality.gather(1, sample.index)[negative])
            hardness[name].append(hard.gather(1, sample.index)[negative])
    concatenated = [
        {name: torch.cat(part).numpy() for name, part in one.items() if part} for one in (overlaps, hardness)
    ]
    return SampledNegatives(concatenated[0], images, concatenated[1])


def hard_negatives(negative: Tensor, loss: Tensor, fraction: float = HARD) -> Tensor:
    """Return which negatives (B,N) bool of each image are among the ``fraction`` with the highest loss (B,N)."""
    count = (negative.sum(1) * fraction).ceil().long()
    return select_topk(negative, loss.nan_to_num(nan=0.0).clamp(min=0), count, negative.shape[1])


def _assignment(network: TwoStageNetwork, batch: Batch) -> tuple[Assignment, Tensor]:
    """The second stage's assignment of a batch's proposals and their classification losses (B,N), on the CPU."""
    branch = network.branch
    batch = batch.to(next(branch.parameters()).device)
    maps = network.neck(network.backbone(batch.pixels))
    proposals = branch.proposal.training_postprocess(branch.proposal.head(maps), batch.truth.sizes)
    regions = only_usable(add_ground_truth(proposals, batch.truth))
    assignment = assign_regions(value_at(branch.region.assigner, Progress.final()), regions, batch.truth)
    criterion = value_at(branch.region.criterion, Progress.final())
    predictions = branch.region.head(maps, regions.boxes)
    known = batch.truth.labels.clamp(max=predictions.logits.shape[2] - 1)  # data may have more classes than the model
    loss = criterion.class_loss(predictions, assignment, replace(batch.truth, labels=known))
    return Assignment(*(t.cpu() for t in vars(assignment).values())), loss.cpu()


def draw_negatives(negatives: SampledNegatives, path: str | os.PathLike[str], bins: int = 20) -> Path:
    """Draw the fraction of each sampler's negatives by IoU, and of hard negatives below and above IoU 0.05."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    edges = np.linspace(0, 0.5, bins + 1)
    for name, values in negatives.overlaps.items():
        percent = 100 * np.histogram(values, edges)[0] / max(len(values), 1)
        if name == ALL_NEGATIVES:
            axes.stairs(percent, edges, label=name, fill=True, color="0.75")
        else:
            axes.stairs(percent, edges, label=name, linewidth=1.8)
    axes.set_yscale("log")
    axes.set_yticks([0.5, 1, 2, 5, 10, 20, 50], [f"{tick:g}" for tick in (0.5, 1, 2, 5, 10, 20, 50)])
    axes.minorticks_off()
    axes.set_xlim(0, 0.5)
    axes.set_xlabel("highest IoU with an object")
    axes.set_ylabel("fraction of the negatives, %")
    axes.set_title(f"Sampled negatives of {plural(negatives.images, 'image')}", fontsize=10)
    axes.legend(fontsize=8, frameon=False)
    _draw_hard(right, negatives.hard_fractions())
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _draw_hard(axes: Axes, fractions: Mapping[str, Mapping[str, float]]) -> None:
    """Draw a bar for each sampler: the fraction of its negatives that is hard, divided at IoU 0.05."""
    names = list(fractions)[::-1]
    left = np.zeros(len(names))
    for key, color, label in (("above_0.05", "#e6842a", "IoU >= 0.05"), ("below_0.05", "#f6c98f", "IoU < 0.05")):
        widths = np.array([100 * fractions[name]["of_sample"] * fractions[name][key] for name in names])
        bars = axes.barh(names, widths, left=left, color=color, label=label)
        shown = [f"{width:.1f}" if width > 0.06 * max((left + widths).max(), 1e-9) else "" for width in widths]
        axes.bar_label(bars, shown, label_type="center", fontsize=8)
        left += widths
    axes.set_xlabel("hard negatives, % of the negatives of the sample")
    axes.set_title(f"Hard: the {100 * HARD:g} % of an image's negatives with the highest loss", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    if names:
        axes.legend(fontsize=8, frameon=False, loc="upper right", title="IoU with an object", title_fontsize=8)
        axes.set_ylim(top=len(names) + 0.4)
