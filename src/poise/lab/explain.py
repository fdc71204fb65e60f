"""What the losses of a model weigh: every place's positive, negative and regression weight.

    explanation = poise.lab.explain(model, images, targets)
    dense = explanation.stages["dense"]
    dense.positive, dense.negative, dense.regression  # (B,N) each
    dense.of_object(0, 2)  # the same places as the third object of the first image sees them, (N,) each

A classification loss is the sum over places and classes of ``w_pos * -ln p + w_neg * -ln (1 - p)``, a box loss the sum
over places of ``w_reg * elementwise loss``. Those weights are read from the criterion that computes the losses, with
all normalizers and term weights in them. Letters: **B** images, **N** places, **G** padded objects, **C** classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from poise.criteria.protocol import LossWeights, sum_by_class
from poise.detectors.model import DetectionModel, Target, check_targets
from poise.lab.views import ImageView, ObjectView
from poise.sample import restrict_to_sample
from poise.structures import (
    Assignment,
    Batch,
    GroundTruth,
    Match,
    PairWeights,
    Predictions,
    Priors,
    Progress,
    QueryPredictions,
    RegionPredictions,
    StepOutput,
    map_tensors,
)


class NothingToExplain(ValueError):
    """No stage of the model says what its losses weigh."""


@dataclass(frozen=True)
class Stage:
    """One supervised stage: where it predicts, what it predicted and how much that counts."""

    name: str
    priors: Priors  # anchors, points or proposals; a point is a box of one stride
    predictions: Predictions
    weights: LossWeights  # with classes: ``positive`` and ``negative`` (B,N,C)
    index: Tensor  # (B,N) int64: the object that each place answers to most, -1 where to none
    weighed: Tensor  # (B,N) bool: places that the losses see at all (sampled, not ignored)
    truth: GroundTruth

    @property
    def positive(self) -> Tensor:
        """Positive weight of each place, (B,N); it stands at the class of the place's object."""
        return self.weights.positive.sum(2)

    @property
    def negative(self) -> Tensor:
        """Negative weight of each place, summed over classes (and the background), (B,N)."""
        return self.weights.negatives

    @property
    def regression(self) -> Tensor:
        """Weight of each place's box, (B,N)."""
        return self.weights.regression

    @property
    def boxes(self) -> Tensor:
        """Predicted boxes, (B,N,4) xyxy pixels of the network's input."""
        return self.predictions.boxes

    @property
    def free(self) -> bool:
        """Whether places are boxes of their own, proposals or queries, and no grid over the image."""
        return isinstance(self.predictions, (RegionPredictions, QueryPredictions))

    @property
    def levels(self) -> Tensor:
        """Level of each place, (N,) int64 from 0."""
        sizes = torch.tensor(self.priors.level_sizes)
        return torch.repeat_interleave(torch.arange(len(sizes)), sizes)

    def cpu(self) -> Stage:
        """The same in the CPU's memory."""
        parts = {f.name: map_tensors(getattr(self, f.name), Tensor.cpu) for f in fields(self)}
        weights = {f.name: map_tensors(getattr(self.weights, f.name), Tensor.cpu) for f in fields(self.weights)}
        return replace(self, **{**parts, "weights": LossWeights(**weights)})

    def of_image(self, image: int) -> ImageView:
        """The places of one image and its objects."""
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

    def of_object(self, image: int, number: int) -> ObjectView:
        """The places as object ``number`` of an image sees them."""
        return self.of_image(image).of_object(number)


@dataclass(frozen=True)
class Explanation:
    """Every stage of a model that says what it weighs, and the losses that those weights made."""

    stages: dict[str, Stage]
    losses: dict[str, Tensor]
    truth: GroundTruth  # in pixels of the network's input
    silent: tuple[str, ...] = ()  # stages that do not say


def explain(
    model: DetectionModel,
    images: Sequence[Tensor] | Tensor,
    targets: Sequence[Target],
    progress: Progress | None = None,
    seed: int = 0,
) -> Explanation:
    """What the losses of these images weigh.

    Args:
        model: in evaluation or training mode; nothing of it changes in evaluation mode.
        images: RGB (3,H_i,W_i) images as the model's call takes them, or one (B,3,H,W) tensor of normalized pixels.
        targets: one dict an image with ``boxes`` and ``labels``, in pixels of what is given.
        progress: where training stands; by default past every switch of the model's schedule.
        seed: of samplers that choose by chance.

    Raises:
        NothingToExplain: no stage says what its losses weigh.
        ValueError: images or targets that cannot be right.
    """
    check_targets(targets, model.num_classes)
    batch = _batch_of(model, images, targets)
    return explain_batch(model.network, batch, progress or model.progress, seed, model.name)


@torch.no_grad()
def explain_batch(
    network: nn.Module, batch: Batch, progress: Progress, seed: int = 0, name: str = "this model"
) -> Explanation:
    """The same of a batch as the engine makes them."""
    return explanation_of(step(network, batch, progress, seed), batch.truth, name)


@torch.no_grad()
def step(network: nn.Module, batch: Batch, progress: Progress, seed: int = 0) -> StepOutput:
    """What a network's step says of a batch; samplers draw from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network(batch, progress)


@torch.no_grad()
def explanation_of(output: StepOutput, truth: GroundTruth, name: str = "this model") -> Explanation:
    """The same of a step's output."""
    speaking = {stage: match for stage, match in output.matches.items() if hasattr(match.criterion, "weights")}
    if not speaking:
        known = ", ".join(output.matches) or "none"
        raise NothingToExplain(
            f"'{name}' is a model without weights to explain: none of its stages ({known}) has a criterion that says "
            "what its losses weigh (a method 'weights', see docs/lab.md); all models of poise have"
        )
    stages = {stage: _stage(stage, match, truth) for stage, match in speaking.items()}
    return Explanation(stages, output.losses, truth, tuple(stage for stage in output.matches if stage not in stages))


@torch.no_grad()
def assigned_by(output: StepOutput, truth: GroundTruth) -> Explanation:
    """The assignments of a model that does not say its weights: 1 for every positive and negative, or pair weights.

    Raises:
        NothingToExplain: the model does not say its assignments either.
    """
    if not output.matches:
        raise NothingToExplain("a model without weights to explain: its step names no matches (see docs/lab.md)")
    plain = {stage: replace(match, criterion=AsAssigned()) for stage, match in output.matches.items()}
    stages = {stage: _stage(stage, match, truth) for stage, match in plain.items()}
    return Explanation(stages, output.losses, truth, tuple(stages))


@dataclass(frozen=True)
class AsAssigned:
    """Stands in for a criterion that does not say its weights."""

    def weights(
        self, predictions: Predictions, assignment: Assignment | PairWeights, truth: GroundTruth
    ) -> LossWeights:
        classes = predictions.logits.shape[2]
        if isinstance(assignment, PairWeights):
            pairs = assignment.pairs()
            positive = sum_by_class(pairs, truth.labels.clamp(max=classes - 1), classes)
            return LossWeights(positive, assignment.negative, pairs.sum(2), pairs=pairs)
        labels = replace(truth, labels=truth.labels.clamp(max=classes - 1))
        positive = assignment.class_targets(labels, classes)
        nothing = assignment.negative.float()
        return LossWeights(positive, torch.zeros_like(positive), assignment.positive.float(), nothing)


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


def _stage(name: str, match: Match, truth: GroundTruth) -> Stage:
    predictions, assignment, sample = match.predictions, match.assignment, match.sample
    truth = truth if match.truth is None else match.truth
    if sample is not None and isinstance(assignment, Assignment):
        weights = match.criterion.weights(predictions.take(sample.index), restrict_to_sample(assignment, sample), truth)
        places = assignment.index.shape[1]
        parts = (weights.positive, weights.negative, weights.regression, weights.background)
        weights = LossWeights(*(None if part is None else _spread(part, sample.index, places) for part in parts))  # type: ignore[arg-type]
        weighed = _spread(sample.mask, sample.index, places) & ~assignment.ignored
        assignment = replace(assignment, positive=assignment.positive & weighed)
    else:
        weights = match.criterion.weights(predictions, assignment, truth)
        weighed = ~assignment.ignored if isinstance(assignment, Assignment) else torch.ones_like(weights.regression) > 0
    hard = assignment.hard() if isinstance(assignment, PairWeights) else assignment
    index = torch.where(hard.positive, hard.index, -1)
    return Stage(name, predictions.priors, predictions, weights, index, weighed, truth)


def _spread(values: Tensor, index: Tensor, places: int) -> Tensor:
    """Values (B,S,...) of sampled places at all places (B,N,...), 0 at the others."""
    empty = values.new_zeros(len(values), places, *values.shape[2:])
    return empty.scatter(1, index.reshape(*index.shape, *[1] * (values.ndim - 2)).expand_as(values), values)
