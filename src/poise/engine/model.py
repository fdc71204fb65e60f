"""Build the model of a recipe for the classes of a data set."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from poise.criteria.class_weights import with_class_weights
from poise.criteria.federated import FederatedLoss
from poise.data import ImageSet
from poise.data.repeats import images_of_classes
from poise.data.statistics import objects_per_class
from poise.detection_model import DetectionModel
from poise.detection_model.description import Options
from poise.detectors.parts import child, is_query_detector, supervised_parts
from poise.engine.class_transfer import transfer
from poise.models import create_model
from poise.models.files import load_model
from poise.published import load_published
from poise.published.demo import DEMO
from poise.published.sources import checkpoint_named, is_original, locate_weights, names_original
from poise.recipes import ModelSettings, Recipe, TrainSettings
from poise.suggestions import did_you_mean, plural

FITTING = 0.01  # fraction of a model's values that weights must have at least


def build_model(
    recipe: Recipe, train_set: ImageSet, fresh: bool, given: DetectionModel | None = None
) -> tuple[DetectionModel, list[str]]:
    """Build the model of a recipe for the classes of a data set.

    Args:
        fresh: load the weights that the recipe starts from; otherwise a checkpoint is loaded afterward.
        given: copy this model, weights included, instead of building the one that the recipe names.

    Returns:
        The model, and notes on the weights for the user.
    """
    if given is not None:
        model, transferred = _copy(given, train_set)
        notes = ["training the given model, with its weights and parts" + (f"; {transferred}" if transferred else "")]
    else:
        model, notes = _from_recipe(recipe.model, train_set, fresh)
    model.class_map = dict(recipe.data.classes)
    if recipe.train.checkpoint_backbone:
        checkpoint_backbone(model)
    if recipe.train.federated_classes:
        federate(model, images_of_classes(train_set), recipe.train.federated_classes)
    beta, default = recipe.train.class_weights_beta, TrainSettings().class_weights_beta
    if recipe.train.class_weights != "effective_number" and beta != default:
        raise ValueError(f"train.class_weights_beta={beta} has no effect without train.class_weights effective_number")
    if recipe.train.class_weights:
        weights = class_weights(recipe.train.class_weights, train_set, beta)
        weight_classes(model, weights)
        largest = sorted(zip(model.class_names, weights.tolist(), strict=True), key=lambda one: -abs(one[1] - 1))[:8]
        notes.append("class weights: " + ", ".join(f"{name} {weight:.2f}" for name, weight in largest))
    return model, notes


def _copy(given: DetectionModel, train_set: ImageSet) -> tuple[DetectionModel, str]:
    """Copy a model for the classes of a data set; returns what became of its classes, too."""
    classes = len(train_set.class_names)
    if given.num_classes != classes:
        raise ValueError(
            f"the given model has {given.num_classes} classes and {train_set.name} has {classes}: build it with "
            f"create_model(name, num_classes={classes}), or give Detector a name or file instead of a model"
        )
    model = copy.deepcopy(given)
    model.set_classes(train_set.class_names, train_set.category_ids)
    transferred = transfer(model, given.state_dict(), given.class_names)
    model.load_state_dict(transferred.weights, strict=False)
    return model, str(transferred)


def _from_recipe(settings: ModelSettings, train_set: ImageSet, fresh: bool) -> tuple[DetectionModel, list[str]]:
    """The named model; weights of the backbone are fetched only if ``weights`` do not hold the backbone."""
    backbone = None if settings.backbone_weights in ("none", "") else settings.backbone_weights
    pretrained = backbone is not None or (settings.weights and names_original(settings.weights, settings.name))

    def build(backbone_weights: str | None) -> DetectionModel:
        model = named_model(settings, len(train_set.class_names), backbone_weights)
        if pretrained and backbone_weights is None:  # freezes what pretrained weights freeze
            model.network.backbone.freeze_as_pretrained()
        model.set_classes(train_set.class_names, train_set.category_ids)
        return model

    if not fresh or not settings.weights:
        return build(backbone if fresh else None), []
    model = build(None)
    note, missing = _start_weights(model, settings.weights)
    if backbone is not None and any("backbone." in name for name in missing):
        model = build(backbone)
        note, _ = _start_weights(model, settings.weights)
    return model, [note]


def federate(model: DetectionModel, images: np.ndarray, classes: int) -> None:
    """Use the federated loss in a DETR: ``classes`` classes per step, drawn by the number of ``images`` (C,) of each.

    Raises:
        ValueError: another kind of model.
    """
    network = model.network
    if not is_query_detector(network):
        raise ValueError(
            f"train.federated_classes is for models of the DETR family, which '{model.name}' is not: use 0"
        )
    loss = FederatedLoss(network.criterion.class_loss, torch.from_numpy(images), classes)
    network.criterion = replace(network.criterion, class_loss=loss)


def class_weights(wanted: Mapping[str, float] | str, train_set: ImageSet, beta: float = 0.999) -> Tensor:
    """The weight of each class, (C,) float32.

    Args:
        wanted: weights by class name (others: 1), or ``balanced``: objects / (classes * objects of the class), between
            0.1 and 10; or ``effective_number`` (Cui et al. 2019, arXiv 1901.05555, section 4): proportional to
            (1 - beta) / (1 - beta^n) of a class with n objects, with a mean of 1. A class without objects has 1.
        beta: of ``effective_number``.

    Raises:
        ValueError: a name that is no class of the data.
    """
    names = train_set.class_names
    if isinstance(wanted, str):
        counts = objects_per_class(train_set)
        if wanted == "effective_number":
            raw = (1 - beta) / (1 - beta ** np.maximum(counts, 1.0))
            mean = raw[counts > 0].mean() if counts.any() else 1.0
            return torch.from_numpy(np.where(counts > 0, raw / mean, 1.0)).float()
        balanced = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return torch.from_numpy(np.where(counts > 0, balanced.clip(0.1, 10.0), 1.0)).float()
    for name in wanted:
        if name not in names:
            raise ValueError(f"train.class_weights: the data has no class '{name}'{did_you_mean(name, names)}")
    return torch.tensor([wanted.get(name, 1.0) for name in names])


def weight_classes(model: DetectionModel, weights: Tensor) -> None:
    """Weight the classes in the classification loss of every head, auxiliary ones included."""
    for part in supervised_parts(model.network):
        part.criterion = with_class_weights(part.criterion, weights)


def checkpoint_backbone(model: DetectionModel) -> None:
    """Recompute the activations of the backbone's stages in the backward pass (activation checkpointing).

    Raises:
        ValueError: the backbone does not support it, or has batch norms, which would count every image twice.
    """
    body = child(model.network.backbone, "body")
    if any(isinstance(module, _BatchNorm) for module in model.network.backbone.modules()):
        raise ValueError(
            f"train.checkpoint_backbone: the batch norms of '{model.name}' would count every image twice; it is for "
            "backbones without them, such as swin_t, swin_s, swin_b, swin_l"
        )
    switch = getattr(body, "set_grad_checkpointing", None)  # of timm's networks
    if switch is None:
        raise ValueError(f"train.checkpoint_backbone: the backbone of '{model.name}' does not support it")
    switch(True)


def named_model(settings: ModelSettings, num_classes: int, backbone_weights: str | None = None) -> DetectionModel:
    """Build the model that the settings name, with random weights except for the given ones of the backbone."""
    one = checkpoint_named(settings.weights, settings.name) if settings.weights else None
    size = settings.image_size or None
    options: Options = {**(one.options if one else {}), **settings.options}
    if settings.frozen_stages is not None:
        if "frozen_stages" in settings.options:
            raise ValueError("model.frozen_stages and model.options frozen_stages are the same: give one of them")
        options["frozen_stages"] = settings.frozen_stages
    if taken := {"name", "num_classes", "backbone_weights", "image_size"} & options.keys():
        raise ValueError(f"model.options: {', '.join(sorted(taken))} is a setting of its own, or follows from the data")
    return create_model(
        settings.name,
        num_classes=num_classes,
        backbone_weights=backbone_weights,
        image_size=size[0] if size and len(size) == 1 else size,
        **options,
    )


def _start_weights(model: DetectionModel, source: str) -> tuple[str, list[str]]:
    """Fill a model from the weights that ``source`` names; classes are matched by name.

    Returns a note for the user, and the names of the tensors that the file does not hold.
    """
    one, file = checkpoint_named(source, model.name), locate_weights(source, model.name)
    if is_original(file):
        report = load_published(model, file, remap_classes=True)
        return f"weights from {one.original if one else source}: {report}", list(report.missing)
    loaded, own = load_model(file), model.state_dict()
    transferred = transfer(model, loaded.state_dict(), loaded.class_names)
    rest = sorted(set(own) - set(transferred.weights))
    if source == DEMO and any("backbone." in name for name in rest):
        raise ValueError(
            f"model.weights demo: that network is '{loaded.name}', whose backbone '{model.name}' does not have; train "
            f"{loaded.name}, or a model with its backbone (--model.options backbone test_resnet)"
        )
    if sum(one.numel() for one in transferred.weights.values()) < FITTING * sum(one.numel() for one in own.values()):
        raise ValueError(
            f"model.weights: hardly a tensor of {file} fits {model.name} ({len(transferred.weights)} of {len(own)}): "
            f"it is of the model '{loaded.name}'; train that one, or a model with its backbone"
        )
    model.load_state_dict(transferred.weights, strict=False)
    notes = [f"weights from {source}: {plural(len(transferred.weights), 'tensor')}", str(transferred)]
    notes += [f"initialized: {', '.join(rest[:6])}"] if rest else []
    return "; ".join(note for note in notes if note), rest
