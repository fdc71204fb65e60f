"""IoU of the negatives that the samplers of a two-stage detector draw (Pang et al. 2019, figure 3).

Most background regions overlap no object, so a random sample holds few of the hard negatives. IoU-balanced sampling
draws negatives evenly over bins of IoU.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from poise.branches.region import RegionBranch, add_ground_truth, assign_regions, only_usable
from poise.sample import Sampler, libra_article_sampler, libra_sampler, random_sampler
from poise.structures import Assignment, Batch, Progress, value_at
from poise.suggestions import plural

ALL_NEGATIVES = "all negatives"
EDGES = (0.0, 0.05, *(i / 10 for i in range(1, 6)))  # IoU bins of tables and figures


def libra_samplers(size: int = 512) -> dict[str, Sampler]:
    """Random sampling, and IoU-balanced sampling as in the published code and as described in the article."""
    return {
        "random": random_sampler(size),
        "balanced as published": libra_sampler(size),
        "balanced as in the article": libra_article_sampler(size),
    }


@dataclass(frozen=True)
class SampledNegatives:
    """IoU, in [0, 0.5), of the negatives that each sampler drew with the object that they overlap most."""

    overlaps: dict[str, np.ndarray]  # by sampler: (n,) float32; ``ALL_NEGATIVES``: all candidates
    images: int

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
    branch = getattr(network, "branch", None)
    if not isinstance(branch, RegionBranch):
        raise ValueError("only two-stage models sample regions (poise models 'faster_rcnn*' and '*libra_faster_rcnn*')")
    samplers = libra_samplers() if samplers is None else samplers
    generators = {name: torch.Generator().manual_seed(seed) for name in samplers}
    overlaps: dict[str, list[Tensor]] = {ALL_NEGATIVES: [], **{name: [] for name in samplers}}
    images = 0
    for batch in batches:
        assignment = _assignment(network, branch, batch)
        images += len(batch.pixels)
        overlaps[ALL_NEGATIVES].append(assignment.quality[assignment.negative])
        for name, sampler in samplers.items():
            sample = sampler(assignment, generators[name])
            negative = sample.mask & assignment.negative.gather(1, sample.index)
            overlaps[name].append(assignment.quality.gather(1, sample.index)[negative])
    return SampledNegatives({name: torch.cat(parts).numpy() for name, parts in overlaps.items() if parts}, images)


def _assignment(network: nn.Module, branch: RegionBranch, batch: Batch) -> Assignment:
    """The second stage's assignment of a batch's proposals, on the CPU."""
    device = next(network.parameters()).device
    batch = batch.to(device)
    maps = network.neck(network.backbone(batch.pixels))  # type: ignore[operator]
    proposals = branch.proposal.training_postprocess(branch.proposal.head(maps), batch.truth.sizes)
    regions = only_usable(add_ground_truth(proposals, batch.truth))
    assignment = assign_regions(value_at(branch.region.assigner, Progress.final()), regions, batch.truth)
    return Assignment(*(t.cpu() for t in vars(assignment).values()))


def draw_negatives(negatives: SampledNegatives, path: str | os.PathLike[str], bins: int = 20) -> Path:
    """Draw the fraction of each sampler's negatives by IoU."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
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
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
