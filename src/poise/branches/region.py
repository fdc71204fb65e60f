"""The two-stage branch: a stage that proposes regions, and one that classifies and refines them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from poise.boxes import clip
from poise.branches.proposals import Propose, with_truth
from poise.postprocess import classwise_nms, nms_in_sort_order
from poise.sample import restrict_to_sample
from poise.structures import (
    Assignment,
    Detections,
    GroundTruth,
    Match,
    Predictions,
    Priors,
    Progress,
    RegionPredictions,
    StepOutput,
    value_at,
)


class ProposalStage(nn.Module):
    """Region proposals: a head with its assigner, sampler and criterion, and how proposals are made of it."""

    def __init__(
        self, head: nn.Module, assigner: Any, sampler: Any, criterion: Any, training: Propose, testing: Propose
    ) -> None:
        super().__init__()
        self.head, self.assigner, self.sampler, self.criterion = head, assigner, sampler, criterion
        self.in_training, self.in_testing = training, testing

    def forward(
        self, maps: Sequence[Tensor], truth: GroundTruth, progress: Progress, generator: torch.Generator | None
    ) -> tuple[StepOutput, Detections]:
        """Losses and matches, and the proposals of these predictions (without gradient)."""
        predictions = self.head(maps)
        with torch.autocast(truth.boxes.device.type, enabled=False):
            assignment = value_at(self.assigner, progress)(predictions, truth)
            sample = value_at(self.sampler, progress)(assignment, generator)
            sampled = restrict_to_sample(assignment, sample)
            criterion = value_at(self.criterion, progress)
            losses = criterion(predictions.take(sample.index), sampled, truth)
            proposals = self.in_training(predictions, truth.sizes)
        return StepOutput(
            losses, {"rpn": Match(predictions, assignment, criterion=criterion, sample=sample)}
        ), proposals

    def predict(self, maps: Sequence[Tensor], sizes: Tensor) -> Detections:
        return self.in_testing(self.head(maps), sizes)


@dataclass(frozen=True)
class RegionPostProcess:
    """Published test settings of the second stage."""

    score_threshold: float = 0.05  # (region, class) pairs at or below this are dropped
    nms_threshold: float = 0.5
    max_detections: int = 100

    def __post_init__(self) -> None:
        if not (0 <= self.score_threshold <= 1 and 0 <= self.nms_threshold <= 1) or self.max_detections < 1:
            raise ValueError(f"{self}: score and nms lie in [0,1], most is at least 1")

    @torch.no_grad()
    def __call__(self, predictions: RegionPredictions, decoder: Any, valid: Tensor, sizes: Tensor) -> Detections:
        """Detections of regions (B,S) of which ``valid`` count, each class with its own box."""
        scores = predictions.threshold_scores()
        batch, regions, classes = scores.shape
        boxes = decoder.decode(predictions.priors.boxes[:, :, None], predictions.deltas)
        boxes = clip(boxes.expand(-1, -1, classes, -1).flatten(1, 2), sizes)
        labels = torch.arange(classes, device=scores.device).repeat(regions).expand(batch, -1)
        usable = ((scores > self.score_threshold) & valid[..., None]).flatten(1) & boxes.isfinite().all(-1)
        return classwise_nms(
            boxes, scores.flatten(1), labels, usable, self.nms_threshold, self.max_detections, nms_in_sort_order
        )


class RegionStage(nn.Module):
    """Classes and boxes of given regions (Fast R-CNN): a head with its assigner, sampler and criterion."""

    def __init__(
        self, head: nn.Module, assigner: Any, sampler: Any, criterion: Any, postprocess: RegionPostProcess
    ) -> None:
        super().__init__()
        self.head, self.assigner, self.sampler, self.criterion = head, assigner, sampler, criterion
        self.postprocess = postprocess

    def forward(
        self,
        maps: Sequence[Tensor],
        proposals: Detections,
        truth: GroundTruth,
        progress: Progress,
        generator: torch.Generator | None,
    ) -> StepOutput:
        """Losses and matches; the valid objects are added to the proposals."""
        criterion, sampler = value_at(self.criterion, progress), value_at(self.sampler, progress)
        with torch.autocast(truth.boxes.device.type, enabled=False):
            regions = sound(with_truth(proposals, truth))
            assignment = assign_regions(value_at(self.assigner, progress), regions, truth)
        loss = self._class_loss(maps, regions, assignment, truth, criterion) if sampler.needs_loss else None
        sample = sampler(assignment, generator, loss)
        sampled = restrict_to_sample(assignment, sample)
        predictions = self.head(maps, regions.boxes.gather(1, sample.index[..., None].expand(-1, -1, 4)))
        with torch.autocast(truth.boxes.device.type, enabled=False):
            losses = criterion(predictions, sampled, truth)
        return StepOutput(losses, {"rcnn": Match(predictions, sampled, criterion=criterion)})

    def predict(self, maps: Sequence[Tensor], proposals: Detections, sizes: Tensor) -> Detections:
        regions = sound(proposals)
        return self.postprocess(self.head(maps, regions.boxes), self.head.coder, regions.valid, sizes)

    @torch.no_grad()
    def _class_loss(
        self, maps: Sequence[Tensor], regions: Detections, assignment: Assignment, truth: GroundTruth, criterion: Any
    ) -> Tensor:
        return criterion.class_loss(self.head(maps, regions.boxes), assignment, truth)


class RegionBranch(nn.Module):
    """Propose, then decide (Faster R-CNN).

    ``generator`` is what the samplers draw from. ``None`` is torch's own, whose state the engine keeps in its
    checkpoints, for each process, so that a resumed run samples what it would have sampled.
    """

    def __init__(self, proposal: ProposalStage, region: RegionStage, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.proposal, self.region, self.generator = proposal, region, generator

    def forward(self, maps: Sequence[Tensor], truth: GroundTruth, progress: Progress) -> StepOutput:
        first, proposals = self.proposal(maps, truth, progress, self.generator)
        second = self.region(maps, proposals, truth, progress, self.generator)
        return StepOutput({**first.losses, **second.losses}, {**first.matches, **second.matches})

    def propose(self, maps: Sequence[Tensor], sizes: Tensor) -> Detections:
        """The first stage's proposals, without a class."""
        return self.proposal.predict(maps, sizes)

    def predict(self, maps: Sequence[Tensor], sizes: Tensor) -> Detections:
        return self.region.predict(maps, self.propose(maps, sizes), sizes)


def assign_regions(assigner: Any, regions: Detections, truth: GroundTruth) -> Assignment:
    """Assign regions whose first G are the objects themselves: each of those answers to itself, padding is ignored."""
    count, objects = regions.boxes.shape[1], truth.valid.shape[1]
    priors = Priors(regions.boxes, torch.ones(count, device=regions.boxes.device), (count,))
    assignment = assigner(Predictions(priors, regions.scores[..., None], regions.boxes), truth)
    own = torch.arange(objects, device=truth.labels.device).expand_as(truth.labels)
    return replace(
        assignment,
        index=torch.cat((own, assignment.index[:, objects:]), 1),
        positive=torch.cat((truth.valid, assignment.positive[:, objects:]), 1) & regions.valid,
        ignored=(assignment.ignored | ~regions.valid),
        quality=torch.cat((truth.valid.float(), assignment.quality[:, objects:]), 1) * regions.valid,
    )


def sound(regions: Detections) -> Detections:
    """Regions that are not finite or empty are dropped: no longer valid, their box all zero."""
    boxes = regions.boxes.detach().float()
    valid = regions.valid & boxes.isfinite().all(-1) & (boxes[..., 2:] > boxes[..., :2]).all(-1)
    return replace(regions, boxes=torch.where(valid[..., None], boxes, 0.0), valid=valid)
