"""``poise recipes``: list the published recipes or print their settings."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tyro.conf import Positional


@dataclass(frozen=True)
class Arguments:
    """List the recipes whose names match a shell pattern; with --show, every setting of each as YAML.

    The name of every model (poise models) is a recipe as well: fine-tuning on your own data.
    """

    pattern: Positional[str] = "*"
    """Such as 'atss_*', in quotes, so that the shell does not expand it."""
    show: bool = False
    """Print all settings as YAML, which 'poise train --config FILE' reads."""
    json: bool = False
    """Print JSON."""


def run(arguments: Arguments) -> int:
    """Print a line or the settings of each recipe."""
    from poise.models.table import model_rows
    from poise.plugins import added_names, with_origins
    from poise.recipes import describe_recipe, get_recipe, list_recipes, to_dict
    from poise.recipes.small_data import MOST_IMAGES, small_data

    names = list_recipes(arguments.pattern)
    if not names and arguments.pattern in (*model_rows(), *added_names("model")):
        names = [arguments.pattern]
    if not names:
        raise ValueError(f"no recipe matches '{arguments.pattern}'; poise recipes lists all {len(list_recipes())}")
    if arguments.show:
        _show({name: to_dict(get_recipe(name)) for name in names}, arguments.json)
    elif arguments.json:
        print(json.dumps({name: describe_recipe(name) for name in names}, indent=1))
    else:
        shown = dict(zip(names, with_origins("recipe", names), strict=True))
        width = max(map(len, shown.values()))
        if arguments.pattern == "*":
            print(f"start here on a CPU with at most {MOST_IMAGES:,} training images: {small_data.__name__}\n")
        print("\n".join(f"{shown[name]:<{width}}  {describe_recipe(name)}" for name in names))
    return 0


def _show(recipes: dict[str, dict[str, object]], as_json: bool) -> None:
    import yaml

    if as_json:
        print(json.dumps(recipes, indent=1))
        return
    for name, settings in recipes.items():
        print(f"# {name}\n{yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)}")
