"""Ablations: one recipe, the settings in which its variants differ, and the seeds of each."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poise.recipes.fine_tuning import for_model
from poise.recipes.settings import Recipe
from poise.recipes.short_options import settings_by_path, with_options
from poise.recipes.values import stored_value
from poise.storage import read_yaml


@dataclass(frozen=True)
class Variant:
    """A row of the table: its name and its changes, such as ``{"model.options.negative": "probability"}``."""

    name: str
    changes: Mapping[str, object]


@dataclass(frozen=True)
class PlannedRun:
    """One training of an ablation."""

    variant: str
    seed: int
    recipe: Recipe

    @property
    def folder(self) -> str:
        """Its folder within that of the ablation: ``VARIANT/seed-N``, with special characters replaced."""
        return f"{plain_name(self.variant)}/seed-{self.seed}"


@dataclass(frozen=True)
class Ablation:
    """Variants of a recipe, each trained once per seed.

    Raises:
        ValueError: no variant or seed, or two variants of one name (or of one folder).
    """

    variants: tuple[Variant, ...]
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if not self.variants or not self.seeds:
            raise ValueError("an ablation needs at least one variant and one seed")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds} repeat")
        folders: dict[str, str] = {}
        for variant in self.variants:
            folder = plain_name(variant.name).casefold()  # some file systems know no case
            if folder in folders:
                pair = f"'{folders[folder]}' and '{variant.name}'"
                raise ValueError(f"variants {pair} would share a folder: name them differently")
            folders[folder] = variant.name

    def runs(self, recipe: Recipe) -> list[PlannedRun]:
        """List all trainings, seed by seed, so that the table of the first seed is complete early.

        Raises:
            ValueError: a setting does not exist or has another type; the variant is named.
        """
        return [PlannedRun(v.name, seed, _varied(recipe, v, seed)) for seed in self.seeds for v in self.variants]


def grid(settings: Mapping[str, Sequence[object]]) -> tuple[Variant, ...]:
    """Return every combination of the settings' values, named ``gamma1=1, gamma2=2`` after the settings' last parts."""
    names = [name.rpartition(".")[2] for name in settings]
    if len(set(names)) < len(names):
        names = list(settings)
    variants = []
    for values in itertools.product(*settings.values()):
        title = ", ".join(f"{name}={_written(value)}" for name, value in zip(names, values, strict=True))
        variants.append(Variant(title, _changes(dict(zip(settings, values, strict=True)))))
    return tuple(variants)


def load_ablation(path: str | os.PathLike[str]) -> Ablation:
    """Read ``variants`` (name to changes) or ``vary`` (setting to values), and ``seeds``, from a YAML file.

    Raises:
        ValueError: the file is not such a table; the message names it and what is expected.
    """
    table = read_yaml(path)
    if not isinstance(table, dict) or not (set(table) <= {"variants", "vary", "seeds"}):
        raise ValueError(f"{path}: an ablation file holds 'variants' or 'vary', and 'seeds'; see docs/ablation.md")
    if ("variants" in table) == ("vary" in table):
        raise ValueError(f"{path}: give either 'variants' (name to changes) or 'vary' (setting to values)")
    try:
        return Ablation(_variants(table), tuple(int(seed) for seed in table.get("seeds", [0])))
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error


def plain_name(name: str) -> str:
    """Convert a name to one of a folder: letters, digits, ``.``, ``=``, ``+`` and ``-``."""
    return re.sub(r"[^\w.=+]+", "-", name).strip("-.") or "variant"


def _variants(table: Mapping[str, Any]) -> tuple[Variant, ...]:
    if "vary" in table:
        return grid({str(name): values for name, values in table["vary"].items()})
    return tuple(
        Variant(str(name), _changes({str(setting): value for setting, value in (changes or {}).items()}))
        for name, changes in table["variants"].items()
    )


def _changes(options: Mapping[str, object]) -> dict[str, object]:
    """Settings by path; ``epochs`` stays a short name because it moves the milestones as well."""
    epochs = {name: value for name, value in options.items() if name == "epochs"}
    return {**settings_by_path({name: value for name, value in options.items() if name != "epochs"}), **epochs}


def _varied(recipe: Recipe, variant: Variant, seed: int) -> Recipe:
    recipe = for_model(recipe, str(variant.changes.get("model.name", recipe.model.name)))
    try:
        return with_options(recipe, {**variant.changes, "train.seed": seed})
    except ValueError as error:
        raise ValueError(f"variant '{variant.name}': {error}") from error


def _written(value: object) -> str:
    if isinstance(value, Iterable) and not isinstance(value, str):
        return "(" + " ".join(map(str, value)) + ")"
    return str(value).lower() if isinstance(value, bool) else str(stored_value(value))


@dataclass(frozen=True)
class ArticleTable:
    """A table of an article: its subject, its base model or recipe, and its rows."""

    about: str
    recipe: str
    ablation: Ablation


def rows(changes: Mapping[str, Mapping[str, object]]) -> Ablation:
    """Return an ablation from the changed settings of each row, by the title of the row."""
    return Ablation(tuple(Variant(name, settings) for name, settings in changes.items()))


def options(**values: object) -> dict[str, object]:
    """Return options of the model as settings."""
    return {f"model.options.{name}": value for name, value in values.items()}
