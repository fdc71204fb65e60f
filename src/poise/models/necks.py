"""The balanced feature pyramid after the pyramid of any dense or two-stage detector.

``create_model("fcos_r50_fpn", neck="balanced_pyramid(refine='conv')")``
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from poise.detectors import GuidedDetector, PyramidDetector
from poise.detectors.region import RegionDetector
from poise.models.notation import Part
from poise.models.values import build_part
from poise.nn.necks.feature_pyramids import FPN, REFINEMENTS, BalancedPyramid, balanced_pyramid
from poise.nn.necks.ghost_pan import GhostPAN


@dataclass(frozen=True)
class AddedBalancedPyramid:
    """A balanced feature pyramid (BFP, Libra R-CNN) that reads and returns the maps of a model's own pyramid.

    Args:
        refine: of the mean of the levels: ``none``, ``conv`` or ``non_local``.
        refine_level: level, from 0 for the finest, whose size the mean has; None: that of stride 16.
    """

    refine: str = "non_local"
    refine_level: int | None = None

    def __post_init__(self) -> None:
        if self.refine not in REFINEMENTS:
            raise ValueError(f"refine='{self.refine}': one of {', '.join(REFINEMENTS)}")

    def after(self, neck: FPN | GhostPAN) -> nn.Module:
        """Return the neck followed by the balanced feature pyramid."""
        return nn.Sequential(neck, balanced_pyramid(neck.channels, neck.strides, self.refine_level, self.refine))


NECKS: dict[str, Callable[..., AddedBalancedPyramid]] = {"balanced_pyramid": AddedBalancedPyramid}


def extend_neck(network: nn.Module, part: Part, model: str) -> None:
    """Add a balanced feature pyramid after the neck of a dense or two-stage detector.

    Raises:
        ValueError: the name or an option is wrong, the model has no pyramid, or it has the balanced one already.
    """
    built = build_part(part, "neck", NECKS)
    if not isinstance(network, (PyramidDetector, GuidedDetector, RegionDetector)):
        raise ValueError(f"neck='{part}': '{model}' has no feature pyramid; dense and two-stage detectors have one")
    neck: nn.Module = network.get_submodule("neck")
    if any(isinstance(module, BalancedPyramid) for module in neck.modules()):
        raise ValueError(
            f"neck='{part}': '{model}' has a balanced feature pyramid already; its options are refine and refine_level"
        )
    if not isinstance(neck, (FPN, GhostPAN)):
        raise ValueError(f"neck='{part}': the channels of the pyramid of '{model}' ({type(neck).__name__}) are unknown")
    network.neck = built.after(neck)
