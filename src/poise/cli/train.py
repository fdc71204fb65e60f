"""``poise train``: one recipe, one data set, one run folder."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import FlagConversionOff, Positional, arg

from poise.cli.arguments import CommandLineError
from poise.cli.arguments import parse as parse_words
from poise.recipes import Recipe, get_recipe, load_recipe
from poise.recipes.short_options import SHORT_OPTIONS, with_options

if TYPE_CHECKING:
    from poise.engine.run import RunResult


@dataclass(frozen=True)
class Arguments:
    """Train a model or a recipe on your data: poise train NAME --data PATH.

    NAME comes first: a model (poise models), a published recipe (poise recipes), or module:function of your own.
    It is left out with --config FILE, and with --resume --out FOLDER, which continues that run.
    Every setting of the recipe can be changed as --group.name value; the shorter options below cover the usual ones.
    """

    name: Positional[str] = ""
    """Model, recipe or module:function."""
    data: str = ""
    """The data set: a folder or file in COCO, YOLO, Pascal VOC or LVIS layout (sets data.path)."""
    out: Path | None = None
    """The run folder; by default runs/NAME, runs/NAME-2, …"""
    epochs: int | None = None
    """Passes over the data; the milestones of the schedule move along (schedule.epochs)."""
    batch_size: int | None = None
    """Images of one optimizer step, all processes together (data.batch_size)."""
    lr: float | None = None
    """Learning rate, used as given whatever the batch size (optimizer.lr, with optimizer.lr_batch_size 0)."""
    image_size: int | None = None
    """Limit of both sides of an image in pixels (model.image_size)."""
    weights: str = ""
    """Model file, run folder or published checkpoint from which the whole model starts (model.weights)."""
    backbone_weights: str = ""
    """Weights of the backbone: imagenet (downloaded), none (random) or a file (model.backbone_weights)."""
    assigner: str | None = None
    """Another assigner for a dense detector, such as atss or task_aligned (model.options assigner)."""
    score_threshold: float | None = None
    """Score below which validation drops detections (model.options score_threshold)."""
    nms_threshold: float | None = None
    """IoU from which NMS drops the lower-scored of two boxes of a class (model.options nms_threshold)."""
    max_detections: int | None = None
    """Detections per image (model.options max_detections)."""
    seed: int | None = None
    """Seed of all random numbers (train.seed)."""
    workers: int | None = None
    """Processes that load images (data.workers)."""
    on_bad_data: Literal["error", "skip"] | None = None
    """Faulty records, which poise check lists: stop, or leave them out (data.on_bad_data)."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Precision of the network's computation (train.precision)."""
    lab_every: int | None = None
    """Steps between two measurements of the assignment, written to lab.csv and TensorBoard (train.lab_every)."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto takes a GPU where there is one."""
    config: Path | None = None
    """A recipe in YAML, such as recipe.yaml of a run folder."""
    resume: bool = False
    """Continue the run in --out after its last checkpoint, exactly."""
    recipe: Annotated[Recipe, arg(name=""), FlagConversionOff] = field(default_factory=Recipe, metadata={"flat": True})


def parse(words: Sequence[str]) -> Arguments:
    """The arguments, on top of the recipe that they name."""
    name = words[0] if words and not words[0].startswith("-") else ""
    config, out, resume = value_of(words, "--config"), value_of(words, "--out"), "--resume" in words
    if {"-h", "--help"} & set(words):
        start = get_recipe(name) if name else Recipe()
    elif name and config:
        raise CommandLineError(f"give a name ('{name}') or --config {config}, not both")
    elif config:
        start = load_recipe(config)
    elif name:
        if ":" in name:
            sys.path.insert(0, os.getcwd())  # a recipe of the user's own, from where they stand
        start = get_recipe(name)
    elif resume and out:
        start = load_recipe(Path(out) / "recipe.yaml")
    else:
        raise CommandLineError("poise train needs a model or recipe first (poise train atss_r18_fpn --data PATH)")
    return parse_words(Arguments, "poise train", spelled(words), Arguments(name=name, recipe=start))


def spelled(words: Sequence[str]) -> list[str]:
    """The words with ``true`` and ``false`` as Python spells them, which is how the parser reads them."""
    return [re.sub("(^|=)(true|false)$", lambda found: f"{found[1]}{found[2].capitalize()}", word) for word in words]


def value_of(words: Sequence[str], option: str) -> str:
    """The word after ``option`` or after ``option=``, before anything else is parsed."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.removeprefix(f"{option}=")
    return ""


def resolve(arguments: Any) -> Recipe:
    """Return the recipe with the short options applied that were given."""
    given = {name: getattr(arguments, name, None) for name in SHORT_OPTIONS}
    return with_options(arguments.recipe, {name: value for name, value in given.items() if value not in (None, "")})


def run(arguments: Arguments) -> int:
    """Train, say what came of it, and leave a page about it in the run folder."""
    recipe = resolve(arguments)
    if not recipe.data.path:
        raise CommandLineError("poise train needs --data PATH (poise demo-data OUT makes some to try)")
    from poise.cli.page import write_page
    from poise.engine.run import train

    result = train(recipe, out=folder_for(arguments, recipe), resume=arguments.resume, device=arguments.device)
    if int(os.environ.get("RANK", "0")) == 0:
        _say(result)
        write_page(result.out)
    return result.exit_code


def folder_for(arguments: Arguments, recipe: Recipe) -> Path:
    """``--out``, or ``runs/NAME`` with the first number that is free.

    Processes that train together must agree, so under torchrun it is always ``runs/NAME``.
    """
    from poise.api import free_folder

    name = (arguments.name or recipe.model.name).rpartition(":")[2]
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return arguments.out or (Path("runs") / name if together else free_folder(Path("runs"), name))


def _say(result: RunResult) -> None:
    if result.stopped_by:
        print(f"stopped by {result.stopped_by} after epoch {result.epochs}; poise train --resume --out {result.out}")
        return
    numbers = "  ".join(f"{name} {value:.3f}" for name, value in list(result.metrics.items())[:3])
    best = f"; best epoch {result.best_epoch}: {numbers}" if result.metrics else ""
    print(f"{result.epochs} epochs done{best}\nrun folder {result.out}: report.html, best.pt, last.pt, results.csv")
