"""Loss weights of a model: the positive, negative and regression weight of every prior.

    explanation = poise.lab.explain(model, images, targets)
    dense = explanation.stages["dense"]
    dense.positive, dense.negative, dense.regression  # (B,N) each
    dense.object_view(0, 2)  # weights, scores and IoU with respect to object 2 of image 0, (N,) each

A classification loss is the sum over priors and classes of ``w_pos * -ln p + w_neg * -ln (1 - p)``, a box loss the sum
over priors of ``w_reg * elementwise loss``. The weights are read from the criterion that computes the losses and
contain all normalizers and loss weights. Dimensions: **B** images, **N** priors (anchors, points, proposals or
queries), **G** padded objects, **C** classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial

import torch
from torch import Tensor, nn

from poise.detection_model import DetectionModel, Target, check_targets
from poise.lab.views import ImageView, ObjectView
from poise.pairwise import sum_by_class
from poise.protocols import LossWeights, WeighsLosses, class_statistics, with_weights
from poise.structures import (
    Assignment,
    Batch,
    GroundTruth,
    Match,
    PairWeights,
    Predictions,
    Priors,
    Progress,
    StepOutput,
    map_tensors,
)


class NoLossWeights(ValueError):
    """No stage of the model has a criterion that gives loss weights."""


@dataclass(frozen=True)
class Stage:
    """Priors, predictions and loss weights of one supervised stage."""

    name: str
    priors: Priors  # anchors, points, proposals or queries; the box of a point has the side of one stride
    predictions: Predictions
    weights: LossWeights  # by class: ``positive`` and ``negative`` (B,N,C)
    index: Tensor  # (B,N) int64: the object that each prior is assigned to (of several the heaviest), -1: none
    in_loss: Tensor  # (B,N) bool: priors that enter the loss (sampled, not ignored)
    truth: GroundTruth
    class_statistics: Mapping[str, Tensor] = field(default_factory=dict)  # (C,) each, of losses for rare classes

    @property
    def positive(self) -> Tensor:
        """Positive weight of each prior, summed over classes, (B,N)."""
        return self.weights.positive.sum(2)

    @property
    def negative(self) -> Tensor:
        """Negative weight of each prior, summed over classes and the background, (B,N)."""
        return self.weights.negatives

    @property
    def regression(self) -> Tensor:
        """Weight of the box loss of each prior, (B,N)."""
        return self.weights.regression

    @property
    def boxes(self) -> Tensor:
        """Predicted boxes, (B,N,4) xyxy pixels of the network's input."""
        return self.predictions.boxes

    @property
    def on_grid(self) -> bool:
        """Whether the priors lie on a grid over the image; proposals and queries do not."""
        return self.predictions.prior_kind == "cells"

    @property
    def levels(self) -> Tensor:
        """Level of each prior, (N,) int64 from 0."""
        sizes = torch.tensor(self.priors.level_sizes)
        return torch.repeat_interleave(torch.arange(len(sizes)), sizes)

    def cpu(self) -> Stage:
        """A copy on the CPU."""
        parts = {f.name: map_tensors(getattr(self, f.name), Tensor.cpu) for f in fields(self)}
        weights = {f.name: map_tensors(getattr(self.weights, f.name), Tensor.cpu) for f in fields(self.weights)}
        statistics = {name: value.cpu() for name, value in self.class_statistics.items()}
        return replace(self, **{**parts, "weights": LossWeights(**weights), "class_statistics": statistics})

    def image_view(self, image: int) -> ImageView:
        """The priors of one image and its objects."""
        return ImageView(
            priors=self.priors.boxes.expand(len(self.boxes), -1, -1)[image],
            boxes=self.boxes[image],
            scores=self.predictions.scores()[image],
            positive=self.positive[image],
            negative=self.weights.negative[image],
            background=None if self.weights.background is None else self.weights.background[image],
            regression=self.regression[image],
            index=self.index[image],
            pairs=None if self.weights.pairs is None else self.weights.pairs[image],
            objects=self.truth.boxes[image],
            labels=self.truth.labels[image],
            valid=self.truth.valid[image],
        )

    def object_view(self, image: int, number: int) -> ObjectView:
        """The priors of an image with respect to its object ``number``."""
        return self.image_view(image).object_view(number)


@dataclass(frozen=True)
class Explanation:
    """The stages of a model with their loss weights, and the losses that result from them."""

    stages: dict[str, Stage]
    losses: dict[str, Tensor]
    truth: GroundTruth  # in pixels of the network's input
    without_weights: tuple[str, ...] = ()  # names of stages whose criterion gives no weights


def explain(
    model: DetectionModel,
    images: Sequence[Tensor] | Tensor,
    targets: Sequence[Target],
    progress: Progress | None = None,
    *,
    seed: int = 0,
) -> Explanation:
    """Read the loss weights of a model for images and their objects.

    Args:
        model: in evaluation or training mode; nothing of it changes in evaluation mode.
        images: RGB (3,H_i,W_i) images as the model's call takes them, or one (B,3,H,W) tensor of normalized pixels.
        targets: one dict per image with ``boxes`` and ``labels``, in pixels of ``images``.
        progress: progress of training; by default after every switch of the model's schedule.
        seed: seed of random samplers.

    Raises:
        NoLossWeights: no stage has a criterion that gives loss weights.
        ValueError: invalid images or targets.
    """
    check_targets(targets, model.num_classes)
    batch = _batch_of(model, images, targets)
    return explain_batch(model.network, batch, progress or model.progress, seed, name=model.name)


@torch.no_grad()
def explain_batch(
    network: nn.Module, batch: Batch, progress: Progress, seed: int = 0, *, name: str = "this model"
) -> Explanation:
    """:func:`explain` for a batch of the engine."""
    return explain_output(run_step(network, batch, progress, seed), batch.truth, name)


@torch.no_grad()
def run_step(network: nn.Module, batch: Batch, progress: Progress, seed: int = 0) -> StepOutput:
    """Run a training step without gradients; random samplers draw from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        output: StepOutput = network(batch, progress)
        return output


@torch.no_grad()
def explain_output(output: StepOutput, truth: GroundTruth, name: str = "this model") -> Explanation:
    """:func:`explain` for the output of a training step."""
    stages = {
        stage: _stage(stage, match, criterion, truth)
        for stage, match in output.matches.items()
        if (criterion := with_weights(match.criterion)) is not None
    }
    if not stages:
        known = ", ".join(output.matches) or "none"
        raise NoLossWeights(
            f"'{name}' is a model without weights to explain: none of its stages ({known}) has a criterion with a "
            "method 'weights' (see docs/lab.md); all models of poise have one"
        )
    return Explanation(stages, output.losses, truth, tuple(stage for stage in output.matches if stage not in stages))


@torch.no_grad()
def explain_assignments(output: StepOutput, truth: GroundTruth) -> Explanation:
    """Weights from assignments alone, for criteria without ``weights``: 1 for positives and negatives, or pair weights.

    Raises:
        NoLossWeights: the step has no matches either.
    """
    if not output.matches:
        raise NoLossWeights("a model without weights to explain: its step has no matches (see docs/lab.md)")
    plain = {stage: replace(match, loss_factor=1.0) for stage, match in output.matches.items()}
    stages = {stage: _stage(stage, match, UnitWeights(), truth) for stage, match in plain.items()}
    return Explanation(stages, output.losses, truth, tuple(stages))


@dataclass(frozen=True)
class UnitWeights:
    """Weights for a criterion that gives none: 1 for every positive and negative, or the pair weights."""

    def weights(
        self, predictions: Predictions, assignment: Assignment | PairWeights, truth: GroundTruth
    ) -> LossWeights:
        classes = predictions.logits.shape[2]
        pairs, hard = assignment.pairs(), assignment.hard()
        if pairs is not None:
            positive = sum_by_class(pairs, truth.labels.clamp(max=classes - 1), classes)
            return LossWeights(positive, assignment.negative, pairs.sum(2), pairs=pairs)
        labels = replace(truth, labels=truth.labels.clamp(max=classes - 1))
        positive = hard.class_targets(labels, classes)
        return LossWeights(positive, torch.zeros_like(positive), hard.positive.float(), hard.negative.float())


def _batch_of(model: DetectionModel, images: Sequence[Tensor] | Tensor, targets: Sequence[Target]) -> Batch:
    if len(images) != len(targets):
        raise ValueError(f"{len(images)} images but {len(targets)} targets")
    if isinstance(images, Tensor):
        return model.batch(images, targets)
    pixels, sizes, factors = model.prepare(images)
    scaled = [
        {**target, "boxes": target["boxes"].to(pixels.device) / factor}
        for target, factor in zip(targets, factors, strict=True)
    ]
    return model.batch(pixels, scaled, sizes)


def _stage(name: str, match: Match, criterion: WeighsLosses, truth: GroundTruth) -> Stage:
    predictions, hard, sample = match.predictions, match.assignment.hard(), match.sample
    truth = truth if match.truth is None else match.truth
    in_loss = ~hard.ignored
    if sample is None:
        weights = criterion.weights(predictions, match.assignment, truth)
    else:
        sampled = criterion.weights(predictions.take(sample.index), hard.sampled(sample), truth)
        scatter = partial(_scatter_samples, index=sample.index, count=hard.index.shape[1])
        background = None if sampled.background is None else scatter(sampled.background)
        weights = LossWeights(
            scatter(sampled.positive), scatter(sampled.negative), scatter(sampled.regression), background
        )
        in_loss = scatter(sample.mask) & in_loss
        hard = replace(hard, positive=hard.positive & in_loss)
    index = torch.where(hard.positive, hard.index, -1)
    weights = weights.times(match.loss_factor)
    statistics = class_statistics(criterion)
    return Stage(name, predictions.priors, predictions, weights, index, in_loss, truth, statistics)


def _scatter_samples(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Values (B,S,...) of sampled priors as values of all ``count`` priors (B,N,...), 0 of the others."""
    empty = values.new_zeros(len(values), count, *values.shape[2:])
    return empty.scatter(1, index.reshape(*index.shape, *[1] * (values.ndim - 2)).expand_as(values), values)
