"""AutoAssign's head: FCOS's with an implicit objectness instead of the centerness, and a learned center prior."""

from __future__ import annotations

from torch import nn

from poise.assign.center_priors import CenterPrior
from poise.nn.heads.centerness import CenternessHead, Distances
from poise.nn.layers import AnchorGrid, prior_bias


class AutoAssignHead(CenternessHead):
    """Map pyramid maps (B,C,H_l,W_l) to ``QualityPredictions``; the assigner uses ``center_prior``."""

    def __init__(
        self, channels: int, num_classes: int, grid: AnchorGrid, depth: int = 4, *, openable_sides: bool = False
    ) -> None:
        super().__init__(channels, num_classes, grid, Distances(openable_sides), depth=depth, tower_bias=True)
        nn.init.constant_(self.classes.get_parameter("bias"), prior_bias(0.02))
        nn.init.constant_(self.box_distances.get_parameter("bias"), 4.0)
        self.center_prior = CenterPrior(num_classes, 1.0, trained=True)
