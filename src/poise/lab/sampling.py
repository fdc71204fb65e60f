"""Which negatives the samplers of a two-stage detector choose: their overlap with objects (Pang et al. 2019, figure 3).

The article's point: most background regions overlap no object, so that a random sample shows the second stage little
of what it must tell from objects.
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

from poise.branches.proposals import with_truth
from poise.branches.region import RegionBranch, assign_regions, sound
from poise.sample import Sampler, libra_article_sampler, libra_sampler, random_sampler
from poise.structures import Assignment, Batch

EVERY = "every negative"
EDGES = (0.0, 0.05, *(i / 10 for i in range(1, 6)))  # of the bins that tables and figures show


def libra_samplers(size: int = 512) -> dict[str, Sampler]:
    """What is compared: random sampling, and IoU-balanced sampling as published and as described."""
    return {
        "random": random_sampler(size),
        "balanced as published": libra_sampler(size),
        "balanced as in the article": libra_article_sampler(size),
    }


@dataclass(frozen=True)
class SampledNegatives:
    """Overlaps, in [0, 0.5), of the negatives that each sampler chose, with the object that they overlap most."""

    overlaps: dict[str, np.ndarray]  # sampler: (n,) float32; EVERY: all that there were to choose from
    images: int

    def shares(self, edges: tuple[float, ...] = EDGES) -> dict[str, list[float]]:
        """Part of each sampler's negatives in each half-open bin."""
        return {
            name: (np.histogram(values, edges)[0] / max(len(values), 1)).tolist()
            for name, values in self.overlaps.items()
        }

    def below(self, threshold: float = 0.05) -> dict[str, float]:
        """Part of each sampler's negatives that overlap less than ``threshold``."""
        return {
            name: float((values < threshold).mean()) if len(values) else 0.0 for name, values in self.overlaps.items()
        }

    def table(self) -> str:
        """The shares as a Markdown table."""
        titles = [f"{low:.2f} - {high:.2f}" for low, high in pairwise(EDGES)]
        lines = [f"| negatives by IoU | {' | '.join(titles)} |", f"|---|{'---:|' * len(titles)}"]
        for name, shares in self.shares().items():
            lines.append(f"| {name} | {' | '.join(f'{100 * share:.1f} %' for share in shares)} |")
        return "\n".join(lines)


@torch.no_grad()
def sampled_negatives(
    network: nn.Module, batches: Iterable[Batch], samplers: Mapping[str, Sampler] | None = None, seed: int = 0
) -> SampledNegatives:
    """What each sampler chooses of the regions that a network proposes in training.

    Args:
        network: of a two-stage model, best a trained one: its proposals gather around objects.
        batches: images with their objects.
        samplers: by name; by default those of ``libra_samplers()``.
        seed: of the choice.

    Raises:
        ValueError: the network does not propose regions.
    """
    branch = getattr(network, "branch", None)
    if not isinstance(branch, RegionBranch):
        raise ValueError("only two-stage models sample regions (poise models 'faster_rcnn*' and '*libra_faster_rcnn*')")
    samplers = libra_samplers() if samplers is None else samplers
    generators = {name: torch.Generator().manual_seed(seed) for name in samplers}
    found: dict[str, list[Tensor]] = {EVERY: [], **{name: [] for name in samplers}}
    images = 0
    for batch in batches:
        assignment = _assignment(network, branch, batch)
        images += len(batch.pixels)
        found[EVERY].append(assignment.quality[assignment.negative])
        for name, sampler in samplers.items():
            sample = sampler(assignment, generators[name])
            chosen = sample.mask & assignment.negative.gather(1, sample.index)
            found[name].append(assignment.quality.gather(1, sample.index)[chosen])
    return SampledNegatives({name: torch.cat(parts).numpy() for name, parts in found.items() if parts}, images)


def _assignment(network: nn.Module, branch: RegionBranch, batch: Batch) -> Assignment:
    """The second stage's assignment of a batch's proposals, on the CPU."""
    device = next(network.parameters()).device
    batch = batch.to(device)
    maps = network.neck(network.backbone(batch.pixels))  # type: ignore[operator]
    proposals = branch.proposal.in_training(branch.proposal.head(maps), batch.truth.sizes)
    regions = sound(with_truth(proposals, batch.truth))
    assignment = assign_regions(branch.region.assigner, regions, batch.truth)
    return Assignment(*(t.cpu() for t in vars(assignment).values()))


def draw_negatives(negatives: SampledNegatives, path: str | os.PathLike[str], bins: int = 20) -> Path:
    """Write the figure: the share of each sampler's negatives by overlap."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    edges = np.linspace(0, 0.5, bins + 1)
    for name, values in negatives.overlaps.items():
        shares = 100 * np.histogram(values, edges)[0] / max(len(values), 1)
        if name == EVERY:
            axes.stairs(shares, edges, label=name, fill=True, color="0.75")
        else:
            axes.stairs(shares, edges, label=name, linewidth=1.8)
    axes.set_yscale("log")
    axes.set_yticks([0.5, 1, 2, 5, 10, 20, 50], [f"{share:g}" for share in (0.5, 1, 2, 5, 10, 20, 50)])
    axes.minorticks_off()
    axes.set_xlim(0, 0.5)
    axes.set_xlabel("IoU with the nearest object")
    axes.set_ylabel("share of the negatives, %")
    axes.set_title(f"Sampled negatives of {negatives.images} images", fontsize=10)
    axes.legend(fontsize=8, frameon=False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
