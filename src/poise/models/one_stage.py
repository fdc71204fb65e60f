"""A one-stage detector from a head, an assigner and a criterion: what ``poise.register_head`` adds."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from inspect import Parameter

from torch import nn

from poise.assign import Assigner
from poise.criteria import Criterion
from poise.detectors import DenseBranch, PyramidDetector
from poise.models.groups import BackboneOptions, NMSOptions
from poise.models.options import flat_options, option_types
from poise.models.parts import pyramid, timm_backbone
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
        *,
        backbone: BackboneOptions = BackboneOptions(),
        channels: int = 256,
        nms: NMSOptions = NMSOptions(),
        **options: object,
    ) -> PyramidDetector:
        body = timm_backbone(backbone)
        neck = pyramid(body, channels, from_input=False, relu=True)
        built = head(channels, num_classes, neck.strides, **options)
        return PyramidDetector(body, neck, DenseBranch(built, assigner, criterion, PostProcess(**vars(nms))))

    own, types = inspect.signature(head).parameters, option_types(head)
    further = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=own[name].default, annotation=types[name])
        for name in types
        if name not in GIVEN
    ]
    return flat_options(build, further)
