"""A one-stage detector: a head of a single tower, trained on the cells that are nearest to the center of an object."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import poise
from poise.criteria.varifocal import VarifocalCriterion
from poise.nn.layers import init_towers, output_conv, point_grid, prior_bias, tower
from poise.recipes import Recipe, get_recipe, with_settings
from poise.structures import Assignment, GroundTruth, Predictions

poise.require_interface(1)


class CenterHead(nn.Module):
    """Map pyramid maps (B,C,H_l,W_l) to ``Predictions``: one tower, classes and the distances of the box sides."""

    def __init__(self, channels: int, num_classes: int, strides: tuple[int, ...], depth: int = 2) -> None:
        super().__init__()
        self.grid, self.num_classes = point_grid(strides, offset=0.5), num_classes
        self.tower = tower(channels, depth)
        init_towers(self.tower)
        self.classes = output_conv(channels, num_classes, prior_bias())
        self.distances = output_conv(channels, 4)

    def forward(self, maps: list[Tensor]) -> Predictions:
        features, priors = self.tower(list(maps)), self.grid(maps)
        logits, outputs = self.grid.flatten(self.classes(features), self.distances(features))
        distances = outputs.exp() * priors.strides[:, None]
        boxes = priors.centers.repeat(1, 1, 2) + distances * distances.new_tensor([-1, -1, 1, 1])
        return Predictions(priors, logits, boxes)


@dataclass(frozen=True)
class NearestCells:
    """The ``topk`` cells inside an object that are nearest to its center, on the levels that fit its size."""

    topk: int = 9

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        boxes, strides = truth.boxes[:, :, None], predictions.priors.strides.float()  # (B,G,1,4), (N,)
        sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-3)
        offset = (predictions.priors.centers[:, None] - (boxes[..., :2] + boxes[..., 2:]) / 2) / sides  # (B,G,N,2)
        inside = (offset.abs() < 0.5).all(-1) & truth.valid[..., None] & predictions.finite()[:, None]
        level = (sides.prod(-1).sqrt() / (4 * strides)).log2().abs()  # octaves between the sizes of object and level
        cost = torch.where(inside, offset.square().sum(-1) + level, torch.inf)  # (B,G,N)
        chosen = cost.where(cost <= cost.topk(self.topk, largest=False).values[..., -1:], torch.inf)
        lowest, index = chosen.min(1)  # a cell of several objects goes to the one with the lowest cost
        positive = lowest < torch.inf
        return Assignment(index, positive, torch.zeros_like(positive), positive.float())


def center_r18_quick() -> Recipe:
    """CenterHead on ResNet-18, 3 epochs at 320 pixels."""
    return with_settings(get_recipe("center_r18_fpn"), {"schedule.epochs": 3, "model.image_size": (320,)})


poise.register_assigner("nearest_cells", NearestCells)
poise.register_head("center", CenterHead, assigner=NearestCells(), criterion=VarifocalCriterion())
poise.register_recipe("center_r18_quick", center_r18_quick)
