"""Figures of DW's and Libra R-CNN's articles: ``poise lab weights`` and ``poise lab curves``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from poise.cli.arguments import CommandLineError, DataPaths
from poise.cli.arguments import parse as parse_words
from poise.cli.lab_models import load_methods, open_images, read_annotated

if TYPE_CHECKING:
    from poise.lab.annotated_image import AnnotatedImage
    from poise.lab.methods import Method
    from poise.lab.weightings import ObjectWeights

LETTERS = "ABCD"


@dataclass(frozen=True)
class WeightsArguments:
    """Draw the weights of DW, GFL and VFL for one object, on the same predictions: maps, and four anchors."""

    model: Positional[str]
    """A model file, run folder, NAME=WEIGHTS or NAME (random weights): a dense detector."""
    data: DataPaths
    """The data set: a folder or file in COCO, YOLO, Pascal VOC or LVIS layout; given several times, they are joined."""
    class_map: dict[str, str | None] = field(default_factory=dict)
    """Other names of classes: car vehicle van vehicle person null. null drops a class, ignore makes its objects regions
    to ignore. By default as in the training of the model."""
    split: str | None = None
    """Split of the data set; by default val, else test, else the images that the training of the run held out, else the
    only split."""
    image: int = 0
    """Number of the image in the split, from 0."""
    object: int | None = None
    """Number of the object in the image, from 0; by default the largest with four positives under ATSS."""
    form: Literal["auto", "code", "article"] = "auto"
    """Form of DW; auto: that of the model if it is trained by DW, else the code's."""
    out: Path = Path("lab")
    """The folder for numbers and figures."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto takes a GPU where there is one."""
    on_bad_data: Literal["error", "skip"] = "error"
    """Faulty records (poise check lists them): stop, or leave them out."""
    follow_links: bool = False
    """Read what links in the data folder lead to; otherwise such links are refused."""

    @property
    def models(self) -> tuple[str]:
        """The model, as other commands of the lab have them."""
        return (self.model,)


@dataclass(frozen=True)
class CurvesArguments:
    """Draw balanced L1 against smooth L1, and DW's probability of being a negative. No model is needed."""

    alpha: tuple[float, ...] = (0.2, 0.3, 0.5, 1.0)
    """Values of alpha of balanced L1."""
    gamma: float = 1.5
    """Gamma of balanced L1, the gradient of outliers."""
    beta: float = 1.0
    """Error from which balanced L1 is linear."""
    gamma1: tuple[float, ...] = (1.0, 2.0, 3.0, 5.0)
    """Values of gamma1 of the probability of being a negative (article)."""
    best_iou: tuple[float, ...] = (0.6, 0.75, 0.9, 1.0)
    """Values of the best IoU of an object, on which the probability depends in the code."""
    out: Path = Path("lab")
    """The folder for numbers and figures."""


FIGURES: dict[str, type[WeightsArguments] | type[CurvesArguments]] = {
    "weights": WeightsArguments,
    "curves": CurvesArguments,
}


def parse(command: str, words: Sequence[str]) -> WeightsArguments | CurvesArguments:
    """The arguments of one command."""
    arguments = parse_words(FIGURES[command], f"poise lab {command}", words)
    if isinstance(arguments, CurvesArguments):
        numbers = (*arguments.alpha, arguments.gamma, arguments.beta, *arguments.gamma1)
        if min(numbers) <= 0:
            raise CommandLineError("poise lab curves: --alpha, --gamma, --beta and --gamma1 must be greater than 0")
        if not all(0.5 < value <= 1 for value in arguments.best_iou):
            raise CommandLineError("poise lab curves: --best-iou must be greater than 0.5 and at most 1")
    elif arguments.image < 0:
        raise CommandLineError("poise lab weights: --image must be at least 0")
    return arguments


def run(command: str, arguments: Any) -> int:
    """Draw, write and print."""
    return _run_weights(arguments) if command == "weights" else _run_curves(arguments)


def _run_curves(arguments: CurvesArguments) -> int:
    from poise.cli.measurements import table_text
    from poise.lab.curves import (
        box_loss_curves,
        curve_rows,
        draw_box_losses,
        draw_negative_probability,
        negative_probability_curves,
    )
    from poise.storage import write_text_atomically

    losses = box_loss_curves(arguments.alpha, arguments.gamma, arguments.beta)
    probabilities = negative_probability_curves(arguments.gamma1, arguments.best_iou)
    title = f"Balanced L1 with gamma {arguments.gamma:g} and beta {arguments.beta:g}, and smooth L1"
    draw_box_losses(losses, arguments.out / "box-loss.png", title)
    draw_negative_probability(
        probabilities, arguments.out / "negative-probability.png", "DW: probability of being a negative"
    )
    write_text_atomically(arguments.out / "curves.csv", table_text(list(curve_rows(losses, probabilities))))
    for name, one in losses.items():
        inner = float(one.gradient[(one.error - 0.1).abs().argmin()])
        print(f"{name}: gradient {inner:.3f} at an error of 0.1, {float(one.gradient[-1]):.3f} for outliers")
    for name, (overlap, probability) in probabilities.items():
        first = float(overlap[(probability <= 1e-6).nonzero()[0, 0]])
        print(f"probability of being a negative, {name}: 0 from IoU {first:.2f}")
    print(f"box-loss.png, negative-probability.png and curves.csv: {arguments.out}")
    return 0


def _run_weights(arguments: WeightsArguments) -> int:
    from poise.lab.weighting_figures import draw_anchors, draw_weight_maps
    from poise.lab.weightings import four_anchors
    from poise.storage import write_text_atomically

    notes: list[str] = []
    image_set = open_images(arguments, notes)
    (method,) = load_methods([arguments.model], image_set, arguments.device, notes)
    if arguments.image >= len(image_set):
        raise ValueError(f"--image {arguments.image}: the split has images 0 to {len(image_set) - 1}")
    image = read_annotated(image_set, arguments.image)
    number, weights, form = _weigh(method, image, arguments)
    anchors = four_anchors(weights)
    height, width = method.batch(image).truth.sizes[0].tolist()
    sides = (image.pixels.shape[2] / width, image.pixels.shape[1] / height)
    where, scale = (image.boxes[number], weights, anchors), _scale(sides)
    title = f"{method.name}, {image.name}, object {number} ({image_set.class_names[int(image.labels[number])]})"
    draw_anchors(image, *where, scale=scale, path=arguments.out / "weights-anchors.png", title=title)
    draw_weight_maps(image, *where, scale=scale, path=arguments.out / "weights-maps.png", title=title)
    rows = {letter: _row(weights, n) for letter, n in zip(LETTERS, anchors, strict=True)}
    content = {"model": method.name, "image": image.name, "object": number, "form": form, "anchors": rows}
    text = json.dumps({**content, "notes": notes}, indent=1, ensure_ascii=False)
    write_text_atomically(arguments.out / "weights.json", text + "\n")
    print(f"{title}; DW as in the {form}" if form != "model" else f"{title}; DW as the model is trained")
    print(f"| anchor | s | IoU |{''.join(f' {name} pos, neg |' for name in weights.schemes)}")
    print(f"|---|---:|---:|{'---|' * len(weights.schemes)}")
    for letter, row in rows.items():
        cells = "".join(f" {row[name][0]:.4f}, {row[name][1]:.4f} |" for name in weights.schemes)
        print(f"| {letter} | {row['score']:.3f} | {row['iou']:.3f} |{cells}")
    for note in notes:
        print(f"note: {note}")
    print(f"weights-anchors.png, weights-maps.png and weights.json: {arguments.out}")
    return 0


def _scale(sides: tuple[float, float]) -> Any:
    import numpy as np

    return np.array([*sides, *sides])


def _weigh(method: Method, image: AnnotatedImage, arguments: WeightsArguments) -> tuple[int, ObjectWeights, str]:
    """The object, its weights, and the form of DW: ``code``, ``article`` or ``model`` for the model's own.

    Raises:
        ValueError: the model is no dense detector, or the image has no object with four positives.
    """
    from poise.assign.dual_weighting import DualWeighting
    from poise.criteria.dual_weighting import DualWeightingCriterion
    from poise.detectors.parts import dense_branch
    from poise.lab.explain import run_step
    from poise.lab.weightings import DW_FORMS, weigh_object

    network = method.model.network
    branch = dense_branch(network)
    if branch is None:
        raise ValueError(f"'{method.name}' is not a dense detector: its priors are proposals or queries")
    form, (dw, criterion) = "code", DW_FORMS["code"]
    if arguments.form != "auto":
        form, (dw, criterion) = arguments.form, DW_FORMS[arguments.form]
    elif isinstance(branch.assigner, DualWeighting) and isinstance(branch.criterion, DualWeightingCriterion):
        form, dw, criterion = "model", branch.assigner, branch.criterion
    batch = method.batch(image)
    predictions = run_step(network, batch, method.model.progress).matches["dense"].predictions
    objects = batch.truth.valid[0].nonzero().flatten().tolist()
    if arguments.object is not None and arguments.object not in objects:
        known = f"0 to {len(image.labels) - 1}" if len(image.labels) else "none"
        raise ValueError(f"--object {arguments.object}: {image.name} has the objects {known}, without crowd regions")
    sides = batch.truth.boxes[0, :, 2:] - batch.truth.boxes[0, :, :2]
    largest = sorted(objects, key=lambda n: -float(sides[n].prod()))
    for number in largest if arguments.object is None else [arguments.object]:
        weights = weigh_object(predictions, batch.truth, number, dw, criterion=criterion)
        if int(weights.positive.sum()) >= 4 or arguments.object is not None:
            return number, weights.cpu(), form
    number = f"none of its {len(objects)} objects has four positives under ATSS" if objects else "it has no objects"
    raise ValueError(f"{image.name}: {number}; choose another --image")


def _row(weights: ObjectWeights, n: int) -> dict[str, Any]:
    pairs = {name: scheme.pairs()[n].tolist() for name, scheme in weights.schemes.items()}
    return {"score": float(weights.score[n]), "iou": float(weights.iou[n]), **pairs}
