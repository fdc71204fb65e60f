"""``poise models``: the models with their size, their published accuracy and weights, and where to start."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tyro.conf import Positional

from poise.cli.help import CommandHelp
from poise.models.table import model_rows
from poise.plugins import added_names, load_plugins, origin_of, with_origins
from poise.published.table import COCO, checkpoints

START = {  # where the choice begins: models with published weights
    "CPU": "nanodet_plus_m_416",
    "small GPU": "vfnet_r50_fpn",
    "best accuracy": "co_dino_5scale_swin_l",
}


@dataclass(frozen=True)
class Arguments:
    """List the models whose names match a shell pattern, with their size and accuracy.

    GFLOPs are 10^9 multiply-adds of the inference of one image of the given size, as papers count them. AP is published
    box AP on COCO val2017 of the checkpoint that the word coco selects. Every name is a recipe for poise train as well.
    """

    pattern: Positional[str] = "*"
    """Such as 'atss_*', in quotes, so that the shell does not expand it."""
    names: bool = False
    """Print the names alone, one per line."""
    json: bool = False
    """Print JSON."""


HELP = CommandHelp(examples=("poise models", "poise models 'atss_*'", "poise models '*_r18_*' --json"))


def run(arguments: Arguments) -> int:
    """Print one model per line, after the models to start with."""
    load_plugins()
    known = sorted([*model_rows(), *added_names("model")])
    names = fnmatch.filter(known, arguments.pattern)
    if not names:
        raise ValueError(f"no model matches '{arguments.pattern}'; poise models lists all {len(known)}")
    if arguments.names:
        print("\n".join(with_origins("model", names)))
        return 0
    if arguments.json:
        print(json.dumps([_facts(name) for name in names], indent=1))
        return 0
    if arguments.pattern == "*":
        print("start here")
        width = max(map(len, START))
        for purpose, name in START.items():
            facts = _facts(name)
            size = f"{facts['parameters_m']:.1f} M parameters, {facts['gflops']:.1f} GFLOPs"
            print(f"  {purpose:<{width}}  {name}: published AP {facts['published_ap']:.1f}, {size}")
        print()
    print(_as_table([_facts(name) for name in names]))
    if arguments.pattern == "*":
        print("\nGFLOPs: 10^9 multiply-adds. AP: published, on COCO val2017, of the weights that --weights coco names.")
    return 0


def _facts(name: str) -> dict[str, Any]:
    """The columns of a model, for JSON and for the table; None where they are not known, as of models of plug-ins."""
    row = model_rows().get(name)
    published = [one for one in checkpoints() if one.model == name]
    return {
        "name": name,
        "package": str(origin_of("model", name) or "poise"),
        "family": row and row.family,
        "backbone": row and row.backbone,
        "parameters_m": row and row.parameters,
        "gflops": row and row.gflops,
        "image_size": row and list(row.size),
        "published_ap": published[0].box_ap if published else None,
        "weights": [COCO, *(one.original for one in published)] if published else [],
        "start_here": next((purpose for purpose, model in START.items() if model == name), None),
    }


def _as_table(rows: Sequence[dict[str, Any]]) -> str:
    heads = ("name", "family", "backbone", "params (M)", "GFLOPs", "image", "AP", "weights")
    cells = [
        (
            *with_origins("model", [row["name"]]),
            *(row[key] or "-" for key in ("family", "backbone")),
            *("-" if row[key] is None else f"{row[key]:.1f}" for key in ("parameters_m", "gflops")),
            "x".join(map(str, row["image_size"] or ["-"])),
            "-" if row["published_ap"] is None else f"{row['published_ap']:.1f}",
            COCO if row["weights"] else "-",
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in [heads, *cells]) for column in range(len(heads))]
    numbers = range(3, 7)
    return "\n".join(
        "  ".join(
            f"{cell:>{width}}" if i in numbers else f"{cell:<{width}}"
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [heads, *cells]
    )
