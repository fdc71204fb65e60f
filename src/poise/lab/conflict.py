"""Conflict of heads, the conflict distance: distances between the class activation maps of the heads of one model.

Zong et al. 2023 measure the conflict of K auxiliary heads: S_ij is the mean over images of KL(C_i || C_j), where C_i is
the class activation map of head i as a distribution over the pixels, and S_i the mean of S_ij and S_ji over j != i.

The article's code is not published. Definitions used here: maps are those of Grad-CAM (Selvaraju et al. 2017) on the
features that all heads share (the encoder's memory; without an encoder the neck's pyramid), for the sum of the logits
of a head's positives at the class of their object. Levels are resized to the image and added; 1e-8 is added to every
pixel before the logarithm. An image where a head has no positive, or a map of zeros, counts for none of its pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from poise.detectors.parts import has_encoder, is_query_detector
from poise.lab.separation import resize_to_image
from poise.nn.transformer.tokens import Tokens
from poise.structures import Batch, GroundTruth, Match, Progress, StepOutput

EPSILON = 1e-8  # added to each pixel before maps are compared


class SingleHead(ValueError):
    """The model has one head only: there is nothing to compare."""


def grad_cam(
    features: Sequence[Tensor], gradients: Sequence[Tensor], canvas: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Grad-CAM summed over levels, (h,w) float32 >= 0.

    Args:
        features, gradients: (C,H_j,W_j) of each level of one image.
        canvas, size: height and width with and without padding; the map is cropped to the latter.
    """
    levels = zip(features, gradients, strict=True)
    maps = [(grad.mean((1, 2))[:, None, None] * level).sum(0).relu() for level, grad in levels]
    return torch.stack([resize_to_image(level, canvas, size) for level in maps]).sum(0)


def to_distribution(activation: Tensor) -> Tensor:
    """Normalize a map >= 0 to float64 values > 0 that sum to 1."""
    values = activation.double()
    values = values / values.sum() + EPSILON
    return values / values.sum()


def kl_divergence(first: Tensor, second: Tensor) -> float:
    """KL(first || second) of two distributions over the same pixels, in nats."""
    return float((first * (first.log() - second.log())).sum())


@dataclass
class HeadConflict:
    """Divergences between the heads of one model, summed over images."""

    images: int = 0
    without_objects: int = 0
    heads: list[str] = field(default_factory=list)
    sums: dict[tuple[str, str], list[float]] = field(default_factory=dict)  # (i, j): sum, images

    def add(self, maps: Mapping[str, Tensor]) -> None:
        """Add one image: the activation map (h,w) of each head, zeros where it has none."""
        self.images += 1
        self.heads.extend(name for name in maps if name not in self.heads)
        distributions = {name: to_distribution(one) for name, one in maps.items() if one.sum() > 0}
        for i, first in distributions.items():
            for j, second in distributions.items():
                if i != j:
                    total = self.sums.setdefault((i, j), [0.0, 0])
                    total[0] += kl_divergence(first, second)
                    total[1] += 1

    def divergence(self, first: str, second: str) -> float:
        """S_ij; 0 of a head and itself, NaN where no image had both."""
        total, images = self.sums.get((first, second), (0.0, 0 if first != second else 1))
        return total / images if images else float("nan")

    def distance(self, head: str) -> float:
        """S_i: the mean of the defined S_ij and S_ji over the other heads j."""
        rest = [name for name in self.heads if name != head]
        return nan_mean([one for name in rest for one in (self.divergence(head, name), self.divergence(name, head))])

    def to_dict(self) -> dict[str, object]:
        """``matrix``: S_ij of row i and column j; ``distance``: S_i of each head; undefined numbers are None."""
        heads = self.heads
        distances = {head: self.distance(head) for head in heads}
        return {
            "images": self.images,
            "without_objects": self.without_objects,
            "heads": list(heads),
            "matrix": [[none_if_nan(self.divergence(i, j)) for j in heads] for i in heads],
            "distance": {head: none_if_nan(value) for head, value in distances.items()},
            "mean_distance": none_if_nan(nan_mean(list(distances.values()))),
        }


def nan_mean(values: Sequence[float]) -> float:
    """The mean of the values that are not NaN; NaN where there is none."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else float("nan")


def none_if_nan(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return None if math.isnan(value) else value


def activation_maps(
    network: nn.Module, batch: Batch, progress: Progress, seed: int = 0, *, name: str = ""
) -> dict[str, Tensor]:
    """The class activation map (h,w) of each head on the first image of a batch; zeros where it has no positive.

    Raises:
        SingleHead: there are no two heads over the same features.
    """
    with torch.enable_grad(), torch.random.fork_rng(devices=[]), shared_features(network) as features:
        torch.manual_seed(seed)
        output: StepOutput = network(batch, progress)
        matches = last_stages(network, output)
        if len(matches) < 2:
            raise SingleHead(
                f"'{name}' has one head: distances need two heads over the same features: a Co-DETR with auxiliary "
                "heads, a two-stage model, or NanoDet-Plus with its guide"
            )
        levels = features[0]
        size = int(batch.truth.sizes[0, 0]), int(batch.truth.sizes[0, 1])
        canvas = int(batch.pixels.shape[2]), int(batch.pixels.shape[3])
        result = {}
        for head, match in matches.items():
            target, result[head] = positive_logit_sum(match, batch.truth), torch.zeros(size)
            if target is not None:
                grads = torch.autograd.grad(target, levels, retain_graph=True, allow_unused=True)
                filled = [torch.zeros_like(a) if g is None else g for a, g in zip(levels, grads, strict=True)]
                maps, slopes = ([level[0].detach().float() for level in part] for part in (levels, filled))
                result[head] = grad_cam(maps, slopes, canvas, size).cpu()
    return result


def last_stages(network: nn.Module, output: StepOutput) -> dict[str, Match]:
    """The last stage of each head; both stages of two-stage models without a decoder."""
    if not is_query_detector(network):
        return dict(output.matches)
    last: dict[str, Match] = {}
    for stage, match in output.matches.items():
        head, _, _ = stage.rpartition("/")
        if stage == "queries" or (head and match.predictions.prior_kind != "queries"):
            last[head or "decoder"] = match
    return last


def positive_logit_sum(match: Match, truth: GroundTruth) -> Tensor | None:
    """Sum of the logits of the first image's positives at the class of their object; None where it has none."""
    assignment = match.assignment.hard()
    if not assignment.positive[0].any():
        return None
    logits = match.predictions.logits
    label = assignment.labels(truth).clamp(max=logits.shape[2] - 1)  # a proposal head has one class: any object
    own = logits.gather(2, label[..., None]).squeeze(2)
    return own[0][assignment.positive[0]].sum()


@contextmanager
def shared_features(network: nn.Module) -> Iterator[list[list[Tensor]]]:
    """Record the maps (B,C,H,W) that all heads read, as leaves that require gradients."""
    leaves: list[list[Tensor]] = []

    def detach(module: nn.Module, inputs: object, output: Tokens | Sequence[Tensor]) -> Tokens | list[Tensor]:
        if isinstance(output, Tokens):
            levels = [level.detach().requires_grad_() for level in output.maps()]
            leaves.append(levels)
            return replace(output, values=torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1))
        levels = [level.detach().requires_grad_() for level in output]
        leaves.append(levels)
        return levels

    hook = network.get_submodule("encoder" if has_encoder(network) else "neck").register_forward_hook(detach)
    try:
        yield leaves
    finally:
        hook.remove()
