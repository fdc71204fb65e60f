"""Two-stage detectors as graphs: proposals and detections as tensors of fixed width, without loops over images."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from poise.boxes import clip
from poise.branches.region import ProposalStage, RegionStage
from poise.detectors.parts import RegionNetwork, TwoStageNetwork
from poise.export.operators import read_regions, suppress
from poise.nn.kernels.roi_align import RegionAlign

LOWEST = -1e30  # logit of what is no proposal


class PyramidAlign(nn.Module):
    """``RegionAlign`` as one operator of the graph."""

    def __init__(self, align: RegionAlign) -> None:
        super().__init__()
        self.levels, self.strides, self.size = align.levels, align.strides, align.size

    def forward(self, maps: Sequence[Tensor], regions: Tensor) -> Tensor:
        """Return features (B*S,C,size,size) of regions (B,S,4)."""
        boxes, scales = regions.flatten(0, 1), [1 / stride for stride in self.strides]
        image = torch.arange(regions.shape[0])[:, None].expand(-1, regions.shape[1]).flatten()
        return read_regions([*maps[: len(scales)]], boxes, image, self.levels(boxes).long(), scales, self.size)


class Proposals(nn.Module):
    """The first stage: maps to proposals (B,S,4) and which of them are valid, (B,S).

    They are ordered by their logits: runtimes compute the sigmoid of low logits as 0.

    Args:
        stage: a ``ProposalStage``.
        any_size: pad every level to the largest number that NMS takes, because the numbers of priors are not known.
    """

    def __init__(self, stage: ProposalStage, any_size: bool) -> None:
        super().__init__()
        self.head, self.post, self.any_size = stage.head, stage.inference_postprocess, any_size

    def forward(self, maps: Sequence[Tensor], sizes: Tensor) -> tuple[Tensor, Tensor]:
        predictions = self.head(maps)
        level_sizes, limit = predictions.priors.level_sizes, self.post.max_per_level
        width = limit if self.any_size else min(limit, max(level_sizes))
        finite, logits = predictions.boxes.isfinite().all(-1), predictions.logits[..., 0]
        logits = torch.where(finite & logits.isfinite(), logits, LOWEST)
        all_boxes = clip(torch.where(finite[..., None], predictions.boxes, 0.0), sizes)
        levels, start = [], 0
        for size in level_sizes:
            level_logits, level_boxes = logits[:, start : start + size], all_boxes[:, start : start + size]
            if self.any_size or size < width:
                level_logits = pad(level_logits, (0, width), value=LOWEST)
                level_boxes = pad(level_boxes, (0, 0, 0, width))
            best = level_logits.topk(width, 1)
            levels.append((best.values, level_boxes.gather(1, best.indices[..., None].expand(-1, -1, 4))))
            start = start + size
        scores, boxes = torch.stack([s for s, _ in levels], 1), torch.stack([b for _, b in levels], 1)  # (B,L,n)
        usable = (scores > LOWEST) & (boxes[..., 2:] > boxes[..., :2]).all(-1)
        offset = torch.arange(len(levels))[:, None] * (boxes.amax((1, 2, 3)) + 1)[:, None, None]
        order = torch.where(usable, torch.arange(width, 0, -1, dtype=torch.float32), 0.0)
        kept = suppress(boxes + offset[..., None], order, self.post.nms_threshold) > 0
        count = min(self.post.max_proposals, len(levels) * width)
        best = torch.where(kept, scores, LOWEST).flatten(1).topk(count, 1)
        return boxes.flatten(1, 2).gather(1, best.indices[..., None].expand(-1, -1, 4)), best.values > LOWEST


class Regions(nn.Module):
    """The second stage: maps and proposals to ``boxes`` (B,S,C|1,4) and ``scores`` (B,S,C), or to detections.

    Scores of proposals that are not valid are 0. Detections are ``boxes`` (B,K,4), ``scores`` and ``labels`` (B,K),
    best first, padded with scores of 0.
    """

    def __init__(self, stage: RegionStage, suppressed: bool) -> None:
        super().__init__()
        self.head, self.post, self.suppressed = copy.copy(stage.head), stage.postprocess, suppressed
        self.head._modules = {**stage.head._modules, "align": PyramidAlign(stage.head.align)}

    def forward(self, maps: Sequence[Tensor], proposals: Tensor, valid: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        predictions = self.head(maps, torch.where(valid[..., None], proposals, 0.0))
        scores = torch.where(valid[..., None], predictions.threshold_scores(), 0.0)
        boxes = self.head.coder.decode(predictions.priors.boxes[:, :, None], predictions.deltas)
        return self._detections(boxes, scores, sizes) if self.suppressed else (boxes, scores)

    def _detections(self, boxes: Tensor, scores: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        classes = scores.shape[2]
        finite = boxes.isfinite().all(-1)
        boxes = clip(torch.where(finite[..., None], boxes, 0.0).flatten(1, 2), sizes).unflatten(1, (-1, boxes.shape[2]))
        boxes, scores = boxes.transpose(1, 2).expand(-1, classes, -1, -1), scores.transpose(1, 2)  # (B,C,S)
        usable = (scores > self.post.score_threshold) & finite.transpose(1, 2)
        farthest = torch.where(usable[..., None], boxes, 0.0).amax((1, 2, 3)) + 1
        offset = torch.arange(classes)[:, None] * farthest[:, None, None]
        kept = suppress(boxes + offset[..., None], torch.where(usable, scores, 0.0), self.post.nms_threshold)
        best = kept.flatten(1).topk(min(self.post.max_detections, kept.shape[1] * kept.shape[2]), 1)
        found = boxes.flatten(1, 2).gather(1, best.indices[..., None].expand(-1, -1, 4))
        return found, best.values, best.indices // scores.shape[2]


class TwoStage(nn.Module):
    """Map normalized pixels (B,3,H,W) and ``sizes`` (B,2) before padding to the outputs of ``Regions``."""

    def __init__(self, network: TwoStageNetwork, suppressed: bool, any_size: bool) -> None:
        super().__init__()
        self.backbone, self.neck = network.backbone, network.neck
        self.proposals = Proposals(network.branch.proposal, any_size)
        self.regions = Regions(network.branch.region, suppressed)

    def forward(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        maps = self.neck(self.backbone(pixels))
        return self.regions(maps, *self.proposals(maps, sizes), sizes)


class FromProposals(nn.Module):
    """The same from ``proposals`` (B,S,4) of another detector; those without area are padding (Fast R-CNN)."""

    def __init__(self, network: RegionNetwork, suppressed: bool) -> None:
        super().__init__()
        self.backbone, self.neck = network.backbone, network.neck
        self.regions = Regions(network.branch, suppressed)

    def forward(self, pixels: Tensor, sizes: Tensor, proposals: Tensor) -> tuple[Tensor, ...]:
        proposals = clip(proposals, sizes)
        valid = (proposals[..., 2:] > proposals[..., :2]).all(-1) & proposals.isfinite().all(-1)
        return self.regions(self.neck(self.backbone(pixels)), proposals, valid, sizes)
