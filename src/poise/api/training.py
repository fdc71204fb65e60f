"""From a detector to the settings of a training, and back from its best weights."""

from __future__ import annotations

from pathlib import Path

from poise.detection_model import DetectionModel
from poise.storage import read_safely


def start_settings(
    model: DetectionModel, given: bool, weights: str | None, backbone_weights: str | None
) -> dict[str, object]:
    """Return the settings, by path, that make a training start from a detector.

    Args:
        model: the detector's model.
        given: the detector was made from a model, which is trained itself.
        weights: from which the training starts, as ``model.weights``; None if they are random.
        backbone_weights: with a detector made by name: as in ``poise.create_model``.
    """
    options = dict(model.options)
    settings: dict[str, object] = {"model.name": model.name}
    if "image_size" in options:
        settings["model.image_size"] = tuple(options.pop("image_size"))
    if given:
        settings["model.backbone_weights"] = "none"
    elif weights is not None:
        settings.update({"model.weights": weights, "model.backbone_weights": "none"})
    elif backbone_weights is not None:
        settings["model.backbone_weights"] = backbone_weights
    return {**settings, "model.options": options} if options else settings


def load_best(model: DetectionModel, file: Path) -> None:
    """Load the weights and class names of ``best.pt`` into a model that may have exchanged parts.

    ``poise.load`` would build the model anew from its name and options, which do not describe such parts.
    """
    payload = read_safely(file)
    model.load_state_dict(payload["weights"])
    model.set_classes(payload["model"]["class_names"], payload["model"]["category_ids"])
