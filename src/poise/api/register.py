"""Functions by which a package adds its own parts to poise; each adds one entry to a dictionary.

The package calls them when it is imported. It is named wherever its parts are listed, and in the files of models that
use them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

from torch import nn

from poise.assign import Assigner
from poise.criteria import Criterion
from poise.data.augment.pipeline import AUGMENTATIONS
from poise.data.opening import FORMATS, DatasetFormat
from poise.evaluate.extra import METRICS, Metric
from poise.models.assigners import ASSIGNERS, Choice
from poise.models.catalog import BACKBONES, NAMES, Entry
from poise.models.criteria import CRITERIA
from poise.models.one_stage import one_stage
from poise.models.samplers import SAMPLERS
from poise.models.schemes import SOFT_CRITERIA
from poise.models.values import made_type
from poise.nn.backbones import timm_features
from poise.plugins import add
from poise.preprocess import Preprocess
from poise.recipes import Recipe
from poise.recipes.catalog import RECIPES
from poise.sample import Sampler
from poise.structures import PairWeights

if TYPE_CHECKING:
    from poise.data.augment.scene import Scene


def register_assigner(
    name: str,
    build: Callable[..., Assigner],
    *,
    needs_anchors: bool = False,
    criterion: Callable[[], Criterion] | None = None,
) -> None:
    """Add an assigner: ``create_model(…, assigner="name(option=value)")``, ``--assigner name``.

    Args:
        build: a frozen dataclass with ``__call__(predictions, truth)``, or a function that returns one. All options
            have defaults. The return type of the call, ``Assignment`` or a kind of ``PairWeights``, decides which
            criteria can read it.
        needs_anchors: the IoU of the priors is read; heads of points then get square anchors.
        criterion: for an assigner with a kind of ``PairWeights`` of its own: the criterion that it brings along.
    """
    add("assigner", ASSIGNERS, name, Choice(build, "anchors" if needs_anchors else "predictions"), module=_caller())
    made = made_type(build)
    if criterion is not None and made is not None:
        returned = get_type_hints(vars(made)["__call__"]).get("return")
        if not (isinstance(returned, type) and issubclass(returned, PairWeights) and returned is not PairWeights):
            raise ValueError(
                f"assigner '{name}': a criterion comes along with a class of PairWeights of your own, which the call "
                f"of {made.__name__} must declare as its return type; other assigners use the criterion of the model"
            )
        SOFT_CRITERIA.setdefault(returned, criterion)


def register_sampler(name: str, build: Callable[..., Sampler]) -> None:
    """Add a sampler of regions for two-stage detectors; ``build`` as in :func:`register_assigner`."""
    add("sampler", SAMPLERS, name, build, module=_caller())


def register_criterion(name: str, build: Callable[..., Criterion]) -> None:
    """Add a criterion.

    Args:
        build: as in :func:`register_assigner`. The types of ``predictions`` and ``assignment`` in its ``__call__``
            decide which heads and assigners it is compatible with. An option ``coder`` gets the model's own encoding of
            boxes.
    """
    add("criterion", CRITERIA, name, build, module=_caller())


def register_head(
    name: str,
    head: Callable[..., nn.Module],
    *,
    assigner: Assigner,
    criterion: Criterion,
    preprocess: Preprocess | None = None,
) -> None:
    """Add a one-stage detector ``NAME_r50_fpn`` for each backbone of poise.

    Args:
        head: ``head(channels, num_classes, strides, **options)`` builds the module ``head(maps) -> Predictions``. Its
            options become options of the model. With an attribute ``grid``, an ``AnchorGrid``, other assigners can be
            given.
        assigner: that of the model by default.
        criterion: that of the model by default.
        preprocess: image size and normalization; by default those of most models.
    """
    builder = one_stage(head, assigner, criterion)
    for short, backbone in BACKBONES.items():
        entry = Entry(builder, {"backbone": backbone}, preprocess or Preprocess())
        add("model", NAMES, f"{name}_{short}_fpn", entry, module=_caller())


def register_backbone(name: str, build: Callable[[Sequence[int]], nn.Module]) -> None:
    """Add a backbone: ``create_model("fcos_r50_fpn", backbone="name")``, ``--model.options backbone name``.

    Args:
        build: ``build(stages)`` returns a module from pixels (B,3,H,W) to one map of each stage, finest first; stage s
            has stride 2^s. Its attribute ``channels`` has the number of channels of each map.
    """
    add("backbone", timm_features.BACKBONES, name, build, module=_caller())


def register_model(name: str, builder: Callable[..., nn.Module], *, preprocess: Preprocess | None = None) -> None:
    """Add a model: ``create_model("name")``, and its fine-tuning recipe of the same name.

    Args:
        builder: ``builder(num_classes, *, backbone_weights=None, **options)`` returns a detector, such as a
            ``PyramidDetector``: ``network(batch, progress) -> StepOutput`` and ``network.predict(pixels, sizes)``. Its
            keyword arguments are the options of the model.
        preprocess: image size and normalization; by default those of most models.
    """
    add("model", NAMES, name, Entry(builder, {}, preprocess or Preprocess()), module=_caller())


def register_recipe(name: str, function: Callable[[], Recipe]) -> None:
    """Add a recipe: ``poise train name``. The first line of the docstring stands in ``poise recipes``."""
    add("recipe", RECIPES, name, function, module=_caller())


def register_dataset_format(
    name: str, *, splits: Callable[[Path], Sequence[str]], read: Callable[[Path, str], dict[str, object]]
) -> None:
    """Add a layout of data sets: all commands then read it. It is tried where none of poise's layouts is found.

    Args:
        splits: ``splits(path)`` returns the names of the splits (``train``, ``val``, …), or nothing where the path has
            another layout.
        read: ``read(path, split)`` returns a split as a COCO dictionary: ``images`` with ``id``, ``file_name`` from the
            path, ``width`` and ``height``, ``annotations`` with ``image_id``, ``category_id`` and ``bbox``, and
            ``categories``. It is checked like a COCO file.
    """
    add("dataset format", FORMATS, name, DatasetFormat(splits, read), module=_caller())


def register_augmentation(name: str, build: Callable[..., Callable[[Scene], Scene]]) -> None:
    """Add an augmentation of training images: ``--augment.extra "name(option=value)"``.

    Args:
        build: ``build(**options)`` returns a function from a scene to a scene: a dictionary with ``image`` (3,H,W),
            ``boxes`` (n,4), both tv_tensors, ``labels`` and flags, so that transforms of torchvision.transforms.v2 fit.
            The image keeps its size. Random numbers are drawn from PyTorch's generator, so that runs can be repeated.
    """
    add("augmentation", AUGMENTATIONS, name, build, module=_caller())


def register_metric(name: str, function: Metric) -> None:
    """Add a metric: ``--evaluate.metric name`` selects ``best.pt`` by it, ``poise eval --metrics name`` computes it.

    Args:
        function: ``function(truth, detections)`` returns a number in [0,1] from the truth as a COCO dictionary and the
            detections as COCO results.
    """
    add("metric", METRICS, name, function, module=_caller())


def _caller() -> str:
    """Name of the module that called a function of this module."""
    frame = sys._getframe(2)
    return str(frame.f_globals.get("__name__", ""))
