"""The two-stage branch of Faster R-CNN (Ren et al. 2015): region proposals, then their classification and
refinement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from poise.boxes import clip
from poise.criteria.region import RegionCriterion
from poise.nn.heads.region import ProposalHead, RegionHead
from poise.postprocess import RegionPostProcess
from poise.protocols import Criterion, HardAssigner
from poise.sample import Sampler
from poise.structures import (
    Assignment,
    Detections,
    GroundTruth,
    Match,
    Predictions,
    Priors,
    Progress,
    StepOutput,
    SwitchAtEpoch,
    values_at,
)

MAX_BOXES_PER_NMS = 1 << 15  # in one call on a GPU, whose memory use is quadratic


@dataclass(frozen=True)
class ProposalPostProcess:
    """Turns predictions of the region proposal network into proposals: top-k of each level, NMS, top-k of the image.

    Works on the whole batch; ties in score go to the lowest index. ``ProposalPostProcessByImage`` is the form for
    inference.

    Args:
        max_per_level: boxes of each level before NMS.
        max_proposals: boxes of each image after NMS.
        nms_threshold: IoU above which NMS drops the lower-scoring of two boxes of a level.
    """

    max_per_level: int = 2000
    max_proposals: int = 1000
    nms_threshold: float = 0.7

    def __post_init__(self) -> None:
        if min(self.max_per_level, self.max_proposals) < 1 or not 0 <= self.nms_threshold <= 1:
            raise ValueError(f"{self}: max_per_level and max_proposals are at least 1, nms_threshold lies in [0,1]")

    @torch.no_grad()
    def __call__(self, predictions: Predictions, sizes: Tensor) -> Detections:
        """Return proposals (B,K) with label 0, clipped to ``sizes`` (B,2), height and width; invalid boxes are
        dropped."""
        all_scores, level_sizes = predictions.scores()[..., 0], predictions.priors.level_sizes
        by_level = all_scores.nan_to_num(nan=-1.0).split(level_sizes, 1)
        starts = [sum(level_sizes[:i]) for i in range(len(level_sizes))]
        top = [_topk(level, self.max_per_level) + start for level, start in zip(by_level, starts, strict=True)]
        index = torch.cat(top, 1)
        scores = all_scores.gather(1, index)
        boxes = predictions.boxes.gather(1, index[..., None].expand(-1, -1, 4))
        usable = boxes.isfinite().all(-1) & scores.isfinite()
        boxes = clip(torch.where(usable[..., None], boxes, 0.0), sizes)
        usable = usable & (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
        scores = torch.where(usable, scores, 0.0)
        kept = usable & nms_by_level(boxes, scores, [part.shape[1] for part in top], self.nms_threshold)
        best = _topk(torch.where(kept, scores, -1.0), self.max_proposals)
        valid = kept.gather(1, best)
        boxes = torch.where(valid[..., None], boxes.gather(1, best[..., None].expand(-1, -1, 4)), 0.0)
        return Detections(boxes, scores.gather(1, best) * valid, torch.zeros_like(best), valid)


def nms_by_level(boxes: Tensor, scores: Tensor, level_sizes: Sequence[int], threshold: float) -> Tensor:
    """Return the mask (B,P) of the boxes that NMS keeps, separately in each image and level.

    On a GPU boxes of images and levels are offset from one another and processed in one call, of as many images as
    memory allows. On a CPU, where NMS is quadratic, each level takes a call. NMS synchronizes host and device.
    """
    kept = torch.zeros_like(scores, dtype=torch.bool)
    step = _images_per_call(boxes)
    if not step:
        for image in zip(boxes, scores, kept, strict=True):
            for part, score, mask in zip(*(t.split(list(level_sizes)) for t in image), strict=True):
                mask[nms(part, score, threshold)] = True
        return kept
    level = torch.cat([torch.full((size,), i, device=boxes.device) for i, size in enumerate(level_sizes)])
    position = torch.arange(len(boxes), device=level.device) % step
    group = level + (level.amax() + 1) * position[:, None]
    shifted = boxes + (group * (boxes.amax() + 1))[..., None]
    for start in range(0, len(boxes), step):
        part = slice(start, start + step)
        index = nms(shifted[part].flatten(0, 1), scores[part].flatten(), threshold)
        kept[part] = torch.zeros_like(kept[part]).flatten().scatter(0, index, True).reshape(kept[part].shape)
    return kept


def _images_per_call(boxes: Tensor) -> int:
    """Return the number of images in one call of NMS; 0: every level of every image takes its own."""
    return max(1, MAX_BOXES_PER_NMS // boxes.shape[1]) if boxes.is_cuda else 0


def _topk(scores: Tensor, count: int) -> Tensor:
    """Return the indices (B,count) of the highest scores (B,P); negative scores last, ties to the lowest index."""
    size = scores.shape[1]
    # The bits of a non-negative float order as integers do; the index in the low bits makes every key unique.
    bits = scores.clamp(min=0).view(torch.int32).long() + 1
    keys = torch.where(scores < 0, 0, bits) << 32
    keys |= torch.arange(size - 1, -1, -1, device=keys.device)
    return keys.topk(min(count, size), 1).indices


class ProposalStage(nn.Module):
    """The first stage: region proposal network with assigner, sampler and criterion.

    Args:
        head: ``(maps) -> DeltaPredictions``.
        training_postprocess, inference_postprocess: make proposals of the predictions.
    """

    def __init__(
        self,
        head: ProposalHead,
        assigner: HardAssigner | SwitchAtEpoch[HardAssigner],
        sampler: Sampler | SwitchAtEpoch[Sampler],
        criterion: Criterion | SwitchAtEpoch[Criterion],
        *,
        training_postprocess: ProposalPostProcess,
        inference_postprocess: ProposalPostProcess,
    ) -> None:
        super().__init__()
        self.head, self.assigner, self.sampler, self.criterion = head, assigner, sampler, criterion
        self.training_postprocess, self.inference_postprocess = training_postprocess, inference_postprocess

    def forward(
        self, maps: Sequence[Tensor], truth: GroundTruth, progress: Progress, generator: torch.Generator | None
    ) -> tuple[StepOutput, Detections]:
        """Return losses and matches, and the detached proposals of these predictions."""
        assigner, sampler, criterion = values_at(progress, self.assigner, self.sampler, self.criterion)
        predictions = self.head(maps)
        with torch.autocast(truth.boxes.device.type, enabled=False):
            assignment = assigner(predictions, truth)
            sample = sampler(assignment, generator)
            losses = criterion(predictions.take(sample.index), assignment.sampled(sample), truth)
            proposals = self.training_postprocess(predictions, truth.sizes)
        match = Match(predictions, assignment, criterion=criterion, sample=sample, assigner=assigner)
        return StepOutput(losses, {"rpn": match}), proposals

    def predict(self, maps: Sequence[Tensor], sizes: Tensor) -> Detections:
        """Return proposals of images of ``sizes`` (B,2), height and width before padding."""
        return self.inference_postprocess(self.head(maps), sizes)


class RegionStage(nn.Module):
    """The second stage (Fast R-CNN: Girshick 2015): box head with assigner, sampler and criterion."""

    def __init__(
        self,
        head: RegionHead,
        assigner: HardAssigner | SwitchAtEpoch[HardAssigner],
        sampler: Sampler | SwitchAtEpoch[Sampler],
        criterion: RegionCriterion | SwitchAtEpoch[RegionCriterion],
        *,
        postprocess: RegionPostProcess,
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
        """Return losses and matches of a sample of proposals and ground-truth boxes."""
        assigner, sampler, criterion = values_at(progress, self.assigner, self.sampler, self.criterion)
        with torch.autocast(truth.boxes.device.type, enabled=False):
            regions = only_usable(add_ground_truth(proposals, truth))
            assignment = assign_regions(assigner, regions, truth)
        loss = None
        if sampler.needs_loss:
            with torch.no_grad():
                loss = criterion.class_loss(self.head(maps, regions.boxes), assignment, truth)
        sample = sampler(assignment, generator, loss)
        sampled = assignment.sampled(sample)
        predictions = self.head(maps, regions.boxes.gather(1, sample.index[..., None].expand(-1, -1, 4)))
        with torch.autocast(truth.boxes.device.type, enabled=False):
            losses = criterion(predictions, sampled, truth)
        return StepOutput(losses, {"rcnn": Match(predictions, sampled, criterion=criterion, assigner=assigner)})

    def predict(self, maps: Sequence[Tensor], proposals: Detections, sizes: Tensor) -> Detections:
        """Return detections of images of ``sizes`` (B,2), height and width before padding."""
        regions = only_usable(proposals)
        return self.postprocess(self.head(maps, regions.boxes), self.head.coder, regions.valid, sizes)


class RegionBranch(nn.Module):
    """Both stages (Faster R-CNN).

    Args:
        generator: of the samplers' random numbers; None: torch's default, whose state checkpoints keep for each
            process.
    """

    def __init__(self, proposal: ProposalStage, region: RegionStage, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.proposal, self.region, self.generator = proposal, region, generator

    def forward(self, maps: Sequence[Tensor], truth: GroundTruth, progress: Progress) -> StepOutput:
        """Return losses and matches of both stages."""
        first, proposals = self.proposal(maps, truth, progress, self.generator)
        second = self.region(maps, proposals, truth, progress, self.generator)
        return StepOutput({**first.losses, **second.losses}, {**first.matches, **second.matches})

    def propose(self, maps: Sequence[Tensor], sizes: Tensor) -> Detections:
        """Return class-agnostic proposals of the first stage."""
        return self.proposal.predict(maps, sizes)

    def predict(self, maps: Sequence[Tensor], sizes: Tensor) -> Detections:
        """Return detections of images of ``sizes`` (B,2), height and width before padding."""
        return self.region.predict(maps, self.propose(maps, sizes), sizes)


def add_ground_truth(proposals: Detections, truth: GroundTruth) -> Detections:
    """Prepend the G objects to the proposals, (B,G+K): early in training few proposals overlap an object."""
    return Detections(
        torch.cat((truth.boxes, proposals.boxes), 1),
        torch.cat((truth.valid.float(), proposals.scores), 1),
        torch.cat((torch.zeros_like(truth.labels), proposals.labels), 1),
        torch.cat((truth.valid, proposals.valid), 1),
    )


def assign_regions(assigner: HardAssigner, regions: Detections, truth: GroundTruth) -> Assignment:
    """Assign regions that start with the G objects; each object is assigned to itself, invalid regions are ignored."""
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


def only_usable(regions: Detections) -> Detections:
    """Make regions invalid, with a box of zeros, whose box is not finite or has no area."""
    boxes = regions.boxes.detach().float()
    valid = regions.valid & boxes.isfinite().all(-1) & (boxes[..., 2:] > boxes[..., :2]).all(-1)
    return replace(regions, boxes=torch.where(valid[..., None], boxes, 0.0), valid=valid)
