"""The model card of a published model: what it is, its data, numbers, recipe, license and hash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poise.detection_model import DetectionModel
from poise.evaluate.metrics import percent
from poise.published.cache import file_hash
from poise.recipes import Recipe
from poise.storage.hub import MODEL_FILE, split_address
from poise.version import __version__

HEADLINE = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "AP small", "ap_medium": "AP medium"}
HEADLINE |= {"ap_large": "AP large"}
MOST_CLASSES = 100  # of the table; metrics.json has all


def model_card(model: DetectionModel, address: str, license: str, recipe: Recipe | None, *, folder: Path) -> str:
    """Return the text of ``README.md``.

    Args:
        model: the published model.
        address: ``hf://owner/name``.
        license: identifier of the license of the weights, or empty.
        recipe: of the training, if it is known.
        folder: has ``model.safetensors``, and ``metrics.json`` if the numbers are known.
    """
    repository, _ = split_address(address)
    metrics = json.loads((folder / "metrics.json").read_text("utf-8")) if (folder / "metrics.json").is_file() else None
    parts = [
        _head(repository, license, recipe, metrics),
        f"# {repository.partition('/')[2]}",
        _description(model),
        _usage(f"hf://{repository}"),
        "" if recipe is None else _data(recipe, metrics),
        "" if metrics is None else _numbers(metrics),
        "" if recipe is None else _recipe(recipe),
        f"## License\n\n{_license(license)}",
        f"## File\n\nSHA-256 of `{MODEL_FILE}`: `{file_hash(folder / MODEL_FILE)}`",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(repository: str, license: str, recipe: Recipe | None, metrics: Mapping[str, Any] | None) -> str:
    """The entries that the Hub reads, as YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    data = " + ".join(recipe.data.paths) if recipe is not None else ""
    results = [
        EvalResult("object-detection", data or "unknown", data or "unknown", name, metrics[name], metric_name=shown)
        for name, shown in HEADLINE.items()
        if metrics is not None and metrics.get(name) is not None
    ]
    content = ModelCardData(
        license=license or "unknown",
        library_name="poise",
        pipeline_tag="object-detection",
        tags=["object-detection"],
        model_name=repository if results else None,
        eval_results=results or None,
    )
    return f"---\n{content.to_yaml()}\n---"


def _description(model: DetectionModel) -> str:
    parameters = sum(value.numel() for value in model.parameters())
    names = ", ".join(model.class_names[:MOST_CLASSES]) + (" …" if model.num_classes > MOST_CLASSES else "")
    size = model.preprocess
    return (
        f"An object detector, `{model.name}` of poise {__version__}: {parameters / 1e6:.1f} million parameters, "
        f"images of at most {size.short} x {size.long} pixels.\n\n{model.num_classes} classes: {names}."
    )


def _usage(address: str) -> str:
    return (
        f"## Use\n\n```sh\npoise predict {address} photographs/\n```\n\n```python\nimport poise\n\n"
        f'detector = poise.Detector("{address}")\nresults = detector.predict("photographs/")\n```'
    )


def _data(recipe: Recipe, metrics: Mapping[str, Any] | None) -> str:
    lines = [f"- training: {', '.join(f'`{path}`' for path in recipe.data.paths)}"]
    if metrics is not None:
        counts = metrics["counts"]
        lines += [f"- validation: split `{metrics.get('split', 'val')}`"]
        lines += [f"- images of the validation: {counts['images']}, with {counts['objects']} objects"]
    return "## Data\n\n" + "\n".join(lines)


def _numbers(metrics: Mapping[str, Any]) -> str:
    """COCO's metrics and those of the classes, in percent."""

    def shown(value: float | None) -> str:
        return "-" if value is None else percent(value)

    lines = ["## Numbers", "", "COCO metrics of the best epoch, in percent.", "", "| metric | value |", "|---|---:|"]
    lines += [f"| {label} | {shown(metrics.get(name))} |" for name, label in HEADLINE.items()]
    lines += ["", "| class | AP | AP50 | objects |", "|---|---:|---:|---:|"]
    for one in metrics.get("classes", ())[:MOST_CLASSES]:
        lines.append(f"| {one['name']} | {shown(one['ap'])} | {shown(one['ap50'])} | {one['objects']} |")
    return "\n".join(lines)


def _recipe(recipe: Recipe) -> str:
    model, optimizer = recipe.model, recipe.optimizer
    start = f"`{model.weights}`" if model.weights else f"backbone weights `{model.backbone_weights}`"
    lines = [
        f"- epochs: {recipe.schedule.epochs}",
        f"- batch size: {recipe.data.batch_size}",
        f"- optimizer: {optimizer.name}, learning rate {optimizer.lr:g}, weight decay {optimizer.weight_decay:g}",
        f"- started from: {start}",
        "- all settings: `recipe.yaml`, for `poise train --config recipe.yaml --data PATH`",
    ]
    return "## Recipe\n\n" + "\n".join(lines)


def _license(license: str) -> str:
    return f"Weights: `{license}`." if license else "The author states no license for the weights."
