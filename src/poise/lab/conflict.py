"""How far the heads of one model look at different things: distances between class activation maps.

Zong et al. 2023 measure the conflict of K auxiliary heads: S_ij is the mean over images of KL(C_i || C_j), where C_i is
the class activation map of head i as a distribution over the pixels, and S_i the mean of S_ij and S_ji over the others.

The article's code is not published. Definitions taken here: maps are Grad-CAM's (Selvaraju et al. 2017) on the features
that all heads share (the encoder's memory; without an encoder the neck's pyramid), for the sum of the logits of a
head's positives at their object's class; levels are resized to the image and added; 1e-8 is added to every pixel before
the logarithm. An image where a head has no positive, or sees nothing, counts for none of its pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from poise.detectors.query import QueryDetector
from poise.lab.separation import on_image
from poise.nn.transformer.tokens import Tokens
from poise.structures import Assignment, Batch, GroundTruth, Match, Progress, QueryPredictions, StepOutput

LEAST = 1e-8  # of each pixel, before maps are compared


class OneHead(ValueError):
    """The model has one head only: nothing to compare."""


def grad_cam(features: Sequence[Tensor], gradients: Sequence[Tensor], canvas: tuple[int, int], size: Any) -> Tensor:
    """Where the features speak for what the gradients are of, (h,w) float32 >= 0.

    Args:
        features, gradients: (C,H_j,W_j) of each level of one image.
        canvas, size: height and width with and without padding; the map is cut to the latter.
    """
    levels = zip(features, gradients, strict=True)
    maps = [(grad.mean((1, 2))[:, None, None] * level).sum(0).relu() for level, grad in levels]
    return torch.stack([on_image(level, canvas, size) for level in maps]).sum(0)


def distribution(activation: Tensor) -> Tensor:
    """A map >= 0 as float64 that sums to 1 and is nowhere 0."""
    values = activation.double()
    values = values / values.sum() + LEAST
    return values / values.sum()


def divergence(first: Tensor, second: Tensor) -> float:
    """KL(first || second) of two distributions over the same pixels, in nats."""
    return float((first * (first.log() - second.log())).sum())


@dataclass
class Conflict:
    """Divergences between the heads of one model, summed over images."""

    images: int = 0
    without_objects: int = 0
    heads: list[str] = field(default_factory=list)
    sums: dict[tuple[str, str], list[float]] = field(default_factory=dict)  # (i, j): sum, images

    def add(self, maps: Mapping[str, Tensor]) -> None:
        """Count one image: the activation map (h,w) of each head, all zero where it has none."""
        self.images += 1
        self.heads.extend(name for name in maps if name not in self.heads)
        seen = {name: distribution(one) for name, one in maps.items() if one.sum() > 0}
        for i, first in seen.items():
            for j, second in seen.items():
                if i != j:
                    total = self.sums.setdefault((i, j), [0.0, 0])
                    total[0] += divergence(first, second)
                    total[1] += 1

    def between(self, first: str, second: str) -> float:
        """S_ij, 0 of a head and itself, NaN where no image had both."""
        total, images = self.sums.get((first, second), (0.0, 0 if first != second else 1))
        return total / images if images else float("nan")

    def of(self, head: str) -> float:
        """S_i: the mean of S_ij and S_ji over the other heads, of those pairs that are known."""
        rest = [name for name in self.heads if name != head]
        both = [one for name in rest for one in (self.between(head, name), self.between(name, head))]
        return mean_of([value for value in both if not math.isnan(value)])

    def to_dict(self) -> dict[str, Any]:
        """``matrix``: S_ij of row i and column j; ``distance`` of each head: S_i among all heads; None: not known."""
        heads = self.heads
        own = {head: self.of(head) for head in heads}
        return {
            "images": self.images,
            "without_objects": self.without_objects,
            "heads": list(heads),
            "matrix": [[known(self.between(i, j)) for j in heads] for i in heads],
            "distance": {head: known(value) for head, value in own.items()},
            "mean_distance": known(mean_of([value for value in own.values() if not math.isnan(value)])),
        }


def mean_of(values: Sequence[float]) -> float:
    """The mean, NaN of nothing."""
    return sum(values) / len(values) if values else float("nan")


def known(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return None if math.isnan(value) else value


def activations(
    network: nn.Module, batch: Batch, progress: Progress, seed: int = 0, name: str = ""
) -> dict[str, Tensor]:
    """The activation map (h,w) of each head on the first image of a batch; all zero where it has no positive.

    Raises:
        OneHead: there are no two heads over the same features.
    """
    with torch.enable_grad(), torch.random.fork_rng(devices=[]), shared_features(network) as features:
        torch.manual_seed(seed)
        output: StepOutput = network(batch, progress)
        spoken = heads_of(network, output)
        if len(spoken) < 2:
            raise OneHead(
                f"'{name}' has one head: distances need two over the same features: a Co-DETR (auxiliary heads beside "
                "its decoder), a two-stage model, or NanoDet-Plus with its guide"
            )
        levels = features[0]
        size = int(batch.truth.sizes[0, 0]), int(batch.truth.sizes[0, 1])
        canvas = int(batch.pixels.shape[2]), int(batch.pixels.shape[3])
        found = {}
        for head, match in spoken.items():
            target, found[head] = spoken_for(match, batch.truth), torch.zeros(size)
            if target is not None:
                grads = torch.autograd.grad(target, levels, retain_graph=True, allow_unused=True)
                known = [torch.zeros_like(a) if g is None else g for a, g in zip(levels, grads, strict=True)]
                maps, slopes = ([level[0].detach().float() for level in part] for part in (levels, known))
                found[head] = grad_cam(maps, slopes, canvas, size).cpu()
    return found


def heads_of(network: nn.Module, output: StepOutput) -> dict[str, Match]:
    """The last stage of each head; of two-stage models without a decoder both stages."""
    if not isinstance(network, QueryDetector):
        return dict(output.matches)
    last: dict[str, Match] = {}
    for stage, match in output.matches.items():
        head, _, _ = stage.rpartition("/")
        if stage == "queries" or (head and not isinstance(match.predictions, QueryPredictions)):
            last[head or "decoder"] = match
    return last


def spoken_for(match: Match, truth: GroundTruth) -> Tensor | None:
    """Sum of the logits of the first image's positives at their object's class; None where it has none."""
    told = match.assignment if isinstance(match.assignment, Assignment) else match.assignment.hard()
    if not told.positive[0].any():
        return None
    logits = match.predictions.logits
    label = told.labels(truth).clamp(max=logits.shape[2] - 1)  # a proposal head has one class: any object
    own = logits.gather(2, label[..., None]).squeeze(2)
    return own[0][told.positive[0]].sum()


@contextmanager
def shared_features(network: nn.Module) -> Iterator[list[list[Tensor]]]:
    """The maps (B,C,H,W) that all heads read, as leaves that gather gradients."""
    leaves: list[list[Tensor]] = []

    def part(module: nn.Module, words: Any, made: Any) -> Any:
        if isinstance(made, Tokens):
            levels = [level.detach().requires_grad_() for level in made.maps()]
            leaves.append(levels)
            return replace(made, values=torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1))
        levels = [level.detach().requires_grad_() for level in made]
        leaves.append(levels)
        return levels

    place = network.encoder if isinstance(network, QueryDetector) else network.neck
    hook = place.register_forward_hook(part)  # type: ignore[union-attr]
    try:
        yield leaves
    finally:
        hook.remove()
