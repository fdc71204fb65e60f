"""``poise ablate``: train variants of a recipe and compare them in a table."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import FlagConversionOff, Positional, UseAppendAction, arg

from poise.cli import train
from poise.cli.arguments import CommandLineError
from poise.cli.arguments import parse as parse_words
from poise.cli.help import HELP_WORDS, CommandHelp
from poise.recipes import Recipe, get_recipe, load_recipe
from poise.recipes.ablation import Ablation, grid, load_ablation
from poise.recipes.articles import TABLES
from poise.recipes.short_options import full_name
from poise.recipes.values import parse_value, split_values

if TYPE_CHECKING:
    from poise.engine.ablation import AblationResult


@dataclass(frozen=True)
class Arguments:
    """Train variants of a recipe and write their table: poise ablate NAME --data PATH --vary SETTING=VALUE,VALUE.

    NAME comes first: a table of an article (--list shows them), or a model, recipe or module:function whose settings
    --vary or --file vary. Finished runs are not repeated, stopped ones are resumed. Several processes with the same
    command divide the runs. Settings that all variants share are changed as in poise train.
    """

    name: Positional[str] = ""
    """An article's table, a model, a recipe or module:function."""
    data: UseAppendAction[tuple[str, ...]] = ()
    """The data set: a folder or file in COCO, YOLO, Pascal VOC or LVIS layout (data.path); several are joined."""
    class_map: dict[str, str | None] = field(default_factory=dict)
    """Other names of classes: car vehicle van vehicle person null (data.classes). null drops a class, ignore makes its
    objects regions to ignore."""
    vary: tuple[str, ...] = ()
    """SETTING=VALUE,VALUE,… such as model.options.topk=5,9 or assigner=atss,sim_ota; several give every combination."""
    file: Path | None = None
    """A YAML file with named variants instead (docs/ablation.md)."""
    seeds: tuple[int, ...] = ()
    """Seeds with which every variant is trained; by default 0, or those of the file."""
    out: Path | None = None
    """Folder of the runs and tables; by default runs/ablate-NAME. Runs in it are continued."""
    epochs: int | None = None
    """Passes over the data (schedule.epochs)."""
    batch_size: int | Literal["auto"] | None = None
    """Images of one optimizer step (data.batch_size)."""
    image_size: int | None = None
    """Limit of both sides of an image in pixels (model.image_size)."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto takes a GPU where there is one."""
    config: Path | None = None
    """A recipe as YAML file instead of NAME, such as recipe.yaml of a run folder."""
    list: bool = False
    """Print the tables of the articles and exit."""
    recipe: Annotated[Recipe, arg(name=""), FlagConversionOff] = field(default_factory=Recipe, metadata={"flat": True})


HELP = CommandHelp(
    usual=("data", "vary", "file", "seeds", "out", "epochs", "batch_size", "image_size", "device", "config", "list"),
    examples=(
        "poise ablate atss_r18_fpn --data photos --vary assigner=atss,sim_ota --seeds 0 1 2",
        "poise ablate atss_r18_fpn --data photos --vary model.options.topk=5,9 lr=0.0002,0.0005",
    ),
)


def parse(words: Sequence[str]) -> Arguments:
    """Parse the arguments, with the named recipe as default."""
    name = words[0] if words and not words[0].startswith("-") else ""
    config = train.value_of(words, "--config")
    if not name and not config and not {*HELP_WORDS, "--list"} & set(words):
        raise CommandLineError(
            "poise ablate needs a table, model or recipe first; poise ablate --list shows the tables"
        )
    if ":" in name:
        sys.path.insert(0, os.getcwd())  # the user's module is in the current folder
    start = load_recipe(config) if config else _recipe_of(name)
    default = Arguments(name=name, recipe=start)
    if set(HELP_WORDS) & set(words):
        words = [word for word in words if word in HELP_WORDS]
    train.refuse_two_names(words)
    return parse_words(
        Arguments, f"poise ablate {name}".rstrip(), train.with_python_booleans(words), default=default, details=HELP
    )


def _recipe_of(name: str) -> Recipe:
    if not name:
        return Recipe()
    return get_recipe(TABLES[name].recipe if name in TABLES else name)


def run(arguments: Arguments) -> int:
    """Train the runs that are not finished and print the table."""
    if arguments.list:
        width = max(map(len, TABLES))
        print("\n".join(f"{name:<{width}}  {table.about} ({table.recipe})" for name, table in TABLES.items()))
        return 0
    recipe = train.resolve(arguments)
    if not recipe.data.paths:
        raise CommandLineError("poise ablate needs --data PATH (poise demo-data OUT makes some to try)")
    if recipe.data.val == "none":
        raise CommandLineError("poise ablate compares by validation: data.val cannot be none")
    from poise.engine.ablation import ablate

    ablation = planned(arguments)
    name = (arguments.name or recipe.model.name).rpartition(":")[2]
    out = arguments.out or Path("runs") / f"ablate-{name}"
    result = ablate(recipe, ablation, out=out, device=arguments.device)
    _report(result)
    return result.exit_code


def planned(arguments: Arguments) -> Ablation:
    """Return the variants and seeds that the arguments define."""
    sources = [bool(arguments.vary), arguments.file is not None, arguments.name in TABLES]
    if sum(sources) != 1:
        raise CommandLineError("give the variants once: by the name of a table, by --vary, or by --file")
    if arguments.file is not None:
        ablation = load_ablation(arguments.file)
    elif arguments.vary:
        ablation = Ablation(grid(dict(map(_values, arguments.vary))))
    else:
        ablation = TABLES[arguments.name].ablation
    return Ablation(ablation.variants, arguments.seeds or ablation.seeds)


def _values(word: str) -> tuple[str, list[object]]:
    """The setting and the values of ``SETTING=VALUE,VALUE``; commas within brackets do not separate values."""
    setting, _, text = word.partition("=")
    setting = setting.replace("-", "_")
    try:
        values = [parse_value(part) for part in split_values(text)] if text else []
    except ValueError as error:
        raise CommandLineError(f"--vary {word}: {error}") from error
    if not setting or not values:
        raise CommandLineError(f"--vary {word}: write SETTING=VALUE,VALUE, such as model.options.topk=5,9")
    full_name(setting)  # an unknown name is refused here
    return setting, values


def _report(result: AblationResult) -> None:
    print(result.markdown.read_text(encoding="utf-8"), end="")
    print(f"{result.count('done')} of {len(result.states)} runs done; tables: {result.markdown} and {result.csv}")
    for one in result.states:
        if one.state == "failed":
            print(f"failed: {one.run.variant}, seed {one.run.seed}: {one.reason}")
    if result.count("locked") or result.count("open"):
        print("some runs are not finished or are trained by another process: the same command continues them")
