"""``poise train``: train a recipe on a data set and write a run folder."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import FlagConversionOff, Positional, UseAppendAction, arg

from poise.cli.arguments import CommandLineError
from poise.cli.arguments import parse as parse_words
from poise.cli.help import HELP_WORDS, CommandHelp
from poise.models.table import check_early, model_rows
from poise.recipes import Recipe, get_recipe, load_recipe
from poise.recipes.short_options import SHORT_OPTIONS, with_options

if TYPE_CHECKING:
    from poise.engine.run import RunResult


@dataclass(frozen=True)
class Arguments:
    """Train a model or a recipe on your data: poise train NAME --data PATH.

    NAME comes first: a model (poise models), a published recipe (poise recipes), or your own module:function.
    Leave it out with --config FILE, and with --resume --out FOLDER, which continues that run.
    Every setting of the recipe is an option --group.name; the usual ones have the short names below.
    """

    name: Positional[str] = ""
    """Model, recipe or module:function."""
    data: UseAppendAction[tuple[str, ...]] = ()
    """Folder or file in COCO, YOLO, VOC or LVIS layout (data.path). Several are joined: --data A --data B."""
    class_map: dict[str, str | None] = field(default_factory=dict)
    """Other names of classes: van car person null (data.classes). null drops a class, ignore makes its objects
    regions to ignore."""
    out: Path | None = None
    """Run folder; by default runs/NAME, runs/NAME-2 and so on."""
    epochs: int | None = None
    """Passes over the data (schedule.epochs). The milestones of the schedule move along."""
    batch_size: int | Literal["auto"] | None = None
    """Images of one step, all processes together; auto: as many as fit the memory (data.batch_size)."""
    lr: float | None = None
    """Learning rate (optimizer.lr). It is used as given, whatever the batch size (optimizer.lr_batch_size 0)."""
    image_size: int | None = None
    """Limit of both sides of an image in pixels (model.image_size)."""
    weights: str = ""
    """Start of the model: coco, demo, a file, a run or hf://owner/name (model.weights). coco is the published
    checkpoint, which is fetched; the original's name of another one is accepted, too."""
    backbone_weights: str = ""
    """imagenet (downloaded), none or a file (model.backbone_weights). Weights of the backbone; none: random."""
    assigner: str | None = None
    """Another assigner, such as "atss(topk=15)" (model.options assigner). It is for dense detectors."""
    sampler: str | None = None
    """Another sampler of regions for a two-stage detector: ohem, or "ohem(size=256)" (model.options sampler)."""
    criterion: str | None = None
    """Another criterion: varifocal, or "centerness(box_weight=1.0)" (model.options criterion)."""
    neck: str | None = None
    """A stage after the pyramid: balanced_pyramid, or "balanced_pyramid(refine='conv')" (model.options neck)."""
    class_balance: str | None = None
    """A loss for rare classes: seesaw, equalization_v2, "equalized_focal(scale=4.0)" (model.options class_balance)."""
    one_to_one: str | None = None
    """A one-to-one branch of a dense detector, which then detects without NMS: "task_aligned(topk=7, keep=1)"
    (model.options one_to_one)."""
    object_balance: float | None = None
    """1 makes all objects count the same in the losses of a dense detector, however many positives they have; 0 to 1
    (model.options object_balance)."""
    score_threshold: float | None = None
    """Score below which validation drops detections (model.options score_threshold)."""
    nms_threshold: float | None = None
    """IoU from which NMS drops the lower-scored of two boxes of a class (model.options nms_threshold)."""
    max_detections: int | None = None
    """Detections per image (model.options max_detections)."""
    nms_similarity: str | None = None
    """What NMS compares with its threshold: iou, nwd, simd, gcd, "nwd(scale=16.0)" (model.options nms_similarity)."""
    seed: int | None = None
    """Seed of all random numbers (train.seed)."""
    workers: int | None = None
    """Processes that load images (data.workers)."""
    on_bad_data: Literal["error", "skip"] | None = None
    """Records that poise check lists: stop, or skip (data.on_bad_data)."""
    follow_links: bool = False
    """Read what links in the data folder lead to (data.follow_links). Otherwise such links are refused."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Precision of computation (train.precision)."""
    lab_every: int | None = None
    """Steps between two measurements of the assignment, written to lab.csv and TensorBoard (train.lab_every)."""
    loggers: tuple[Literal["wandb", "mlflow", "trackio"], ...] = ()
    """Services that also get the numbers of TensorBoard (train.loggers)."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto: a GPU if there is one."""
    config: Path | None = None
    """A recipe as YAML, such as recipe.yaml of a run folder."""
    resume: bool = False
    """Continue the run in --out exactly, from its last checkpoint."""
    plan: bool = False
    """Print the plan of the training and stop. It has images, classes, objects, model size, memory and warnings;
    nothing is downloaded or written."""
    recipe: Annotated[Recipe, arg(name=""), FlagConversionOff] = field(default_factory=Recipe, metadata={"flat": True})


HELP = CommandHelp(
    usual=(
        *(
            "data",
            "class_map",
            "out",
            "epochs",
            "batch_size",
            "image_size",
            "lr",
            "weights",
            "backbone_weights",
            "assigner",
        ),
        *(
            "seed",
            "workers",
            "device",
            "precision",
            "on_bad_data",
            "follow_links",
            "config",
            "resume",
            "plan",
        ),
        *("data.val_share", "model.options"),
    ),
    examples=(
        "poise train atss_r18_fpn --data photos --epochs 30      # fine-tune on your data",
        "poise train vfnet_r50_fpn --data photos --weights vfnet_r50_coco.pth",
        "poise train fcos_r50_fpn_1x --data coco                 # a published recipe",
        "poise train atss_r18_fpn --data photos --assigner sim_ota --model.options channels 128",
        "poise train --resume --out runs/atss_r18_fpn            # continue a stopped run",
    ),
)


def parse(words: Sequence[str]) -> Arguments:
    """Parse the arguments, with the named recipe as default."""
    name = words[0] if words and not words[0].startswith("-") else ""
    config, out, resume = value_of(words, "--config"), value_of(words, "--out"), "--resume" in words
    if ":" in name:
        sys.path.insert(0, os.getcwd())  # the user's module is in the current folder
    if set(HELP_WORDS) & set(words):
        start = get_recipe(name) if name else Recipe()
        words = [word for word in words if word in HELP_WORDS]
    elif resume and not out:
        raise CommandLineError("--resume needs --out FOLDER, the run folder to continue")
    elif name and config:
        raise CommandLineError(f"give a name ('{name}') or --config {config}, not both")
    elif config:
        start = load_recipe(config)
    elif name:
        start = get_recipe(name)
    elif resume and out:
        if not (Path(out) / "recipe.yaml").is_file():
            raise CommandLineError(f"there is no run to resume in {out}: it has no recipe.yaml")
        start = load_recipe(Path(out) / "recipe.yaml")
    else:
        raise CommandLineError(
            "poise train needs a model or recipe first: poise train atss_r18_fpn --data PATH, or on a CPU with hundreds"
            " of images poise train small_data --data PATH"
        )
    default, program = Arguments(name=name, recipe=start), f"poise train {name}".rstrip()
    details = replace(HELP, model=start.model.name if start.model.name in model_rows() else "")
    refuse_two_names(words)
    words, values = with_python_booleans(words), values_of_short_options(start)
    return parse_words(Arguments, program, words, default=default, details=details, shown=values)


def values_of_short_options(recipe: Recipe) -> dict[str, object]:
    """Return the settings of a recipe by the names of the short options."""
    values: dict[str, object] = {}
    for name, path in SHORT_OPTIONS.items():
        group, _, rest = path.partition(".")
        value = getattr(recipe, group)
        for part in rest.split("."):
            value = value.get(part) if isinstance(value, dict) else getattr(value, part)
        values[name] = value
    return values


def with_python_booleans(words: Sequence[str]) -> list[str]:
    """Return the words with ``true`` and ``false`` spelled as in Python, which the parser expects."""
    return [re.sub("(^|=)(true|false)$", lambda found: f"{found[1]}{found[2].capitalize()}", word) for word in words]


def refuse_two_names(words: Sequence[str]) -> None:
    """Refuse a setting that is given by its short name and by its path, such as ``--lr`` and ``--optimizer.lr``."""
    names, last = set(), ""
    for word in words:
        if word.startswith("--"):
            last = word[2:].partition("=")[0].replace("-", "_")
            names.add(last)
        elif last == "model.options":
            names.add(f"model.options.{word}")  # values among them do no harm
    for short, path in SHORT_OPTIONS.items():
        if {short, path} <= names:
            long = path.replace("model.options.", "model.options ").replace("_", "-")
            raise CommandLineError(f"{path} is given twice: --{short.replace('_', '-')} and --{long}; leave one out")


def value_of(words: Sequence[str], option: str) -> str:
    """Return the value of ``option VALUE`` or ``option=VALUE``, without parsing the other words."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.removeprefix(f"{option}=")
    return ""


def resolve(arguments: Any) -> Recipe:
    """Return the recipe with the short options applied that were given."""
    given = {name: getattr(arguments, name, None) for name in SHORT_OPTIONS}
    given = {name: value for name, value in given.items() if value not in ("", (), {}) and value is not None}
    given = {name: value for name, value in given.items() if value is not False}
    recipe = with_options(arguments.recipe, given)
    check_early(recipe.model.name, recipe.model.options)
    return recipe


def run(arguments: Arguments) -> int:
    """Train, print the result, and write report.html to the run folder."""
    recipe = resolve(arguments)
    if not recipe.data.paths:
        raise CommandLineError("poise train needs --data PATH (poise demo-data OUT makes some to try)")
    from poise.data import splits

    for path in recipe.data.paths:
        splits(path, recipe.data.follow_links)  # a wrong path is an error before PyTorch is loaded
    if arguments.plan:
        from poise.engine.plan import plan_training

        print(plan_training(recipe, device=arguments.device).text())
        return 0
    from poise.cli.page import write_page
    from poise.engine.run import train

    result = train(recipe, out=folder_for(arguments, recipe), resume=arguments.resume, device=arguments.device)
    if int(os.environ.get("RANK", "0")) == 0:
        _report(result)
        write_page(result.out)
    return result.exit_code


def folder_for(arguments: Arguments, recipe: Recipe) -> Path:
    """Return ``--out``, or the first free folder of ``runs/NAME``, ``runs/NAME-2``, ….

    Under torchrun it is always ``runs/NAME``, so that all processes use the same folder.
    """
    from poise.api import free_folder

    name = (arguments.name or recipe.model.name).rpartition(":")[2]
    distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return arguments.out or (Path("runs") / name if distributed else free_folder(Path("runs"), name))


def _report(result: RunResult) -> None:
    if result.stopped_by:
        more = " --train.max-minutes N" if result.stopped_by == "train.max_minutes" else ""
        done = f"stopped by {result.stopped_by} after epoch {result.epochs}"
        print(f"{done}; poise train --resume --out {result.out}{more} continues")
        return
    from poise.evaluate.metrics import percent
    from poise.suggestions import plural

    numbers = "  ".join(f"{name} {percent(value)}" for name, value in list(result.metrics.items())[:3])
    best = f"; best epoch {result.best_epoch}: {numbers}" if result.metrics else ""
    print(f"{plural(result.epochs, 'epoch')} done{best}\n{result.out}: report.html, best.pt, last.pt, results.csv")
