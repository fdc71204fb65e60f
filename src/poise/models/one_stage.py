"""A one-stage detector from a head, an assigner and a criterion: what ``poise.register_head`` adds."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from poise.assign import Assigner
from poise.criteria import Criterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.options import option_types
from poise.models.parts import Weights, pyramid
from poise.nn.backbones.timm_features import Backbone
from poise.postprocess import PostProcess

GIVEN = ("channels", "num_classes", "strides")  # arguments of a head that are no options of the model


def one_stage(head: Callable[..., nn.Module], assigner: Assigner, criterion: Criterion) -> Callable[..., nn.Module]:
    """Return the builder function of a detector on a feature pyramid with strides 8 to 128.

    Args:
        head: ``head(channels, num_classes, strides, **options)`` builds the head, a module from the maps of the pyramid
            to ``Predictions``. Its further keyword arguments become options of the model.
        assigner, criterion: those of the model, unless ``create_model`` exchanges them.
    """

    def build(
        num_classes: int,
        backbone: str = "resnet50",
        backbone_weights: Weights = None,
        frozen_stages: int | None = None,
        norm_eval: bool | None = None,
        channels: int = 256,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.6,
        max_detections: int = 100,
        **options: Any,
    ) -> PyramidDetector:
        body = Backbone(backbone, (3, 4, 5), backbone_weights, frozen_stages, norm_eval)
        neck = pyramid(body, channels, from_input=False, relu=True)
        postprocess = PostProcess(score_threshold, nms_threshold, max_detections=max_detections)
        branch = DenseBranch(head(channels, num_classes, neck.strides, **options), assigner, criterion, postprocess)
        return PyramidDetector(body, neck, branch)

    own = {name: kind for name, kind in option_types(head).items() if name not in GIVEN}
    defaults = inspect.signature(head).parameters
    *shared, _ = inspect.signature(build).parameters.values()
    extra = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name].default) for name in own]
    build.__signature__ = inspect.Signature([*shared, *extra])  # type: ignore[attr-defined]
    build.__annotations__ = {**build.__annotations__, **own}
    return build
