"""An assigner and a criterion of poise in torchvision's own FCOS: the losses of a training step."""

import torch
from torch import Tensor
from torchvision.models.detection import FCOS

from poise.assign import DynamicSoftLabel
from poise.criteria import fcos_criterion
from poise.structures import GroundTruth, Priors, QualityPredictions

assigner, criterion = DynamicSoftLabel(topk=13), fcos_criterion()


def losses(model: FCOS, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the losses by name; ``sum(losses(…).values())`` is minimized."""
    batch, targets = model.transform(images, targets)
    maps = list(model.backbone(batch.tensors).values())
    outputs = model.head(maps)
    anchors = torch.stack(model.anchor_generator(batch, maps))  # (B,N,4): squares of one stride
    boxes = model.box_coder.decode(outputs["bbox_regression"], anchors)
    level_sizes = tuple(level[0, 0].numel() for level in maps)
    priors = Priors(anchors[:1], anchors[0, :, 2] - anchors[0, :, 0], level_sizes)
    predictions = QualityPredictions(priors, outputs["cls_logits"], boxes, outputs["bbox_ctrness"].squeeze(2))
    truth = GroundTruth.collate(targets, batch.image_sizes)
    return criterion(predictions, assigner(predictions, truth), truth)
