"""Co-DETR's instruments: ``poise lab discriminability``, ``attention``, ``instability``, ``distances``, ``queries``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from poise.cli.arguments import CommandLineError
from poise.cli.arguments import parse as parse_words
from poise.cli.lab import methods_of, photographs

if TYPE_CHECKING:
    from poise.lab.instruments import Scores
    from poise.lab.methods import Method
    from poise.lab.scene import Photograph
    from poise.lab.separation import Separation

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Arguments:
    """What every instrument takes."""

    models: Positional[tuple[str, ...]]
    """Model files, run folders, NAME=WEIGHTS or NAME (random weights); of instability the states of a training in
    their order, further trainings after the word vs."""
    data: Path
    """The data set: a folder or file in COCO, YOLO, Pascal VOC or LVIS layout."""
    split: str | None = None
    """Which part of it; may be left out where there is only one."""
    images: int = 0
    """How many images, evenly spread over the data set; 0 takes all."""
    shown: int = 4
    """How many images the figure shows."""
    out: Path = Path("lab")
    """The folder for numbers and figures."""
    seed: int = 0
    """Of samplers that choose by chance."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto takes a GPU where there is one."""
    on_bad_data: Literal["error", "skip"] = "error"
    """Faulty records (poise check lists them): stop, or leave them out."""


@dataclass(frozen=True)
class FeatureArguments(Arguments):
    """How well a model's features tell objects from background: IoF-IoB curves and maps."""

    features: Literal["auto", "neck", "backbone"] = "auto"
    """auto: the encoder's memory where there is an encoder, else the neck's pyramid."""


@dataclass(frozen=True)
class AttentionArguments(Arguments):
    """The same of where a decoder's positive queries look."""

    layer: int = -1
    """Of the decoder, from 0; -1 is the last."""


@dataclass(frozen=True)
class Found:
    """What an instrument writes: numbers, tables (by file name) and what it prints. It has drawn its figures."""

    numbers: dict[str, Any]
    tables: dict[str, list[Row]]
    lines: list[str]


def parse(command: str, words: Sequence[str]) -> tuple[str, Arguments]:
    """The arguments of one instrument."""
    kind: type[Arguments] = {"discriminability": FeatureArguments, "attention": AttentionArguments}.get(
        command, Arguments
    )
    arguments = parse_words(kind, f"poise lab {command}", words)
    if not arguments.models or arguments.images < 0 or arguments.shown < 0:
        raise CommandLineError(f"poise lab {command} takes at least one model; --images and --shown are at least 0")
    if command == "instability" and any(len(states) < 2 for states in series_of(arguments.models)):
        raise CommandLineError(
            "poise lab instability takes two or more states of a training in their order: A B [C …] [vs D E …]"
        )
    return command, arguments


def series_of(models: Sequence[str]) -> list[list[str]]:
    """Models parted at the word ``vs``."""
    parts: list[list[str]] = [[]]
    for word in models:
        if word == "vs":
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def run(request: tuple[str, Arguments]) -> int:
    """Measure, write, print."""
    from dataclasses import replace

    from poise.data import open_data

    command, arguments = request
    images = open_data(arguments.data, arguments.split, arguments.on_bad_data)
    if not len(images):
        raise ValueError(f"{arguments.data} has no images to look at")
    notes: list[str] = []
    every = replace(arguments, models=tuple(word for word in arguments.models if word != "vs"))
    methods = methods_of(every, images, notes)
    found = INSTRUMENTS[command](arguments, methods, photographs(images, arguments.images))
    numbers = {"data": str(arguments.data), "notes": notes, **found.numbers}
    _write(command, arguments.out, numbers, found.tables)
    for line in (*found.lines, *(f"note: {note}" for note in notes)):
        print(line)
    print(f"{command}.json, tables and figures: {arguments.out}")
    return 0


def _write(command: str, folder: Path, numbers: dict[str, Any], tables: Mapping[str, Iterable[Row]]) -> None:
    from poise.storage import write_text_atomically

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(numbers, indent=1, ensure_ascii=False)
    write_text_atomically(folder / f"{command}.json", text + "\n")
    for name, rows in tables.items():
        write_text_atomically(folder / f"{name}.csv", table_text(list(rows)))


def table_text(rows: Sequence[Row]) -> str:
    """Rows of the same names as CSV; a number that is not known is left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["image"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _curves(
    command: str,
    arguments: Arguments,
    methods: Sequence[Method],
    images: Iterable[Photograph],
    scores: Scores,
    what: str,
) -> Found:
    """Discriminability and attention: the same curves of other maps."""
    from poise.lab.instrument_figures import draw_curves, draw_maps
    from poise.lab.instruments import separations

    found, shown = separations(methods, images, scores, arguments.shown)
    draw_curves(found, arguments.out / f"{command}.png", f"{what} on {arguments.data.name}")
    if shown:
        draw_maps(shown, arguments.out / f"{command}-maps.png", what)
    numbers = {"models": {name: one.to_dict() for name, one in found.items()}}
    tables: dict[str, list[Row]] = {
        command: [row for name, one in found.items() for row in _curve_rows(name, one)],
        f"{command}-images": [{"model": name, **row} for name, one in found.items() for row in one.rows],
    }
    return Found(numbers, tables, [_separation_line(name, one) for name, one in found.items()])


def _curve_rows(name: str, one: Separation) -> list[Row]:
    told = one.to_dict()
    if told["curves"] is None:
        return []
    columns = (told["thresholds"], told["curves"]["pooled"]["iof"], told["curves"]["pooled"]["iob"])
    return [{"model": name, "threshold": s, "iof": f, "iob": b} for s, f, b in zip(*columns, strict=True)]


def _separation_line(name: str, one: Separation) -> str:
    left_out = f"{one.without_foreground} without objects, {one.without_background} without background left out"
    if not one.images:
        return f"{name}: no image could be measured ({left_out})"
    means = f"mean {one.mean('inside'):.3f} inside objects, {one.mean('outside'):.3f} outside"
    return f"{name}: contrast {one.mean('contrast'):.4f}, {means}; {one.images} images ({left_out})"


def discriminability(arguments: Any, methods: Sequence[Method], images: Iterable[Photograph]) -> Found:
    """IoF-IoB curves of features."""
    from poise.lab.instruments import feature_scores

    scores = partial(feature_scores, of=arguments.features)
    part = {"auto": "encoder (or pyramid)"}.get(arguments.features, arguments.features)
    return _curves("discriminability", arguments, methods, images, scores, f"Discriminability of the {part}'s features")


def attention(arguments: Any, methods: Sequence[Method], images: Iterable[Photograph]) -> Found:
    """IoF-IoB curves of cross-attention."""
    from poise.lab.instruments import attention_scores

    scores = partial(attention_scores, layer=arguments.layer)
    return _curves("attention", arguments, methods, images, scores, "Cross-attention of positive queries")


def instability(arguments: Arguments, methods: Sequence[Method], images: Iterable[Photograph]) -> Found:
    """Places that change their object from one state to the next."""
    from poise.lab.instability import Instability
    from poise.lab.instrument_figures import draw_instability
    from poise.lab.instruments import instabilities

    rest = iter(methods)
    series = [[next(rest) for _ in states] for states in series_of(arguments.models)]
    found: Mapping[tuple[str, str], Mapping[str, Instability]] = instabilities(series, images, arguments.seed)
    apart = [{(a.name, b.name): found[a.name, b.name] for a, b in pairwise(states)} for states in series]
    draw_instability(apart, arguments.out / "instability.png", f"Instability of matching on {arguments.data.name}")
    steps = [(a, b, stage, one) for (a, b), stages in found.items() for stage, one in stages.items()]
    told = [{"before": a, "after": b, "stage": stage, **one.to_dict()} for a, b, stage, one in steps]
    rows: list[Row] = [{"before": a, "after": b, "stage": s, **row} for a, b, s, one in steps for row in one.rows]
    lines = [
        f"{one['before']} to {one['after']}, {one['stage']}: {one['instability']:.2f} of {one['places']} places change "
        f"their object an image, {100 * one['objects_moved']:.1f} % of {one['objects']} objects are matched elsewhere"
        for one in told
    ]
    return Found({"steps": told}, {"instability": rows}, lines)


def distances(arguments: Arguments, methods: Sequence[Method], images: Iterable[Photograph]) -> Found:
    """Divergences between the class activation maps of a model's heads."""
    from poise.lab.conflict import known
    from poise.lab.instrument_figures import draw_conflict, draw_maps
    from poise.lab.instruments import conflicts

    found, shown = conflicts(methods, images, arguments.seed, arguments.shown)
    draw_conflict(found, arguments.out / "distances.png", f"KL between heads' class activations, {arguments.data.name}")
    if shown:
        draw_maps(shown, arguments.out / "distances-maps.png", "Class activation maps")
    rows: list[Row] = [
        {"model": name, "head": i, "other": j, "divergence": known(one.between(i, j))}
        for name, one in found.items()
        for i in one.heads
        for j in one.heads
        if i != j
    ]
    told = {name: one.to_dict() for name, one in found.items()}
    lines = [_conflict_line(name, one) for name, one in told.items()]
    return Found({"models": told}, {"distances": rows}, lines)


def _conflict_line(name: str, told: Mapping[str, Any]) -> str:
    own = ", ".join(f"{head} {'unknown' if v is None else f'{v:.3f}'}" for head, v in told["distance"].items())
    images = f"{told['images']} images, {told['without_objects']} without objects left out"
    return f"{name}: distance to the other heads {own}; {images}"


def queries(arguments: Arguments, methods: Sequence[Method], images: Iterable[Photograph]) -> Found:
    """Places of original and lent queries."""
    from poise.lab.instrument_figures import draw_queries
    from poise.lab.instruments import placed_queries

    found, shown = placed_queries(methods, images, arguments.seed, arguments.shown)
    draw_queries(found, shown, arguments.out / "queries.png", f"Queries on {arguments.data.name}")
    told = {name: one.to_dict() for name, one in found.items()}
    lines = []
    for name, one in told.items():
        counts = ", ".join(f"{number:.1f} {kind}" for kind, number in one["queries_per_image"].items())
        lines.append(f"{name}: queries an image: {counts}; {one['images']} images, {one['without_objects']} left out")
        for head, apart in one["distance"].items():
            near, far = (apart[f"to_{own}"]["pairs"] for own in ("positive", "negative"))
            both = [f"{value:.3f}" if value is not None else "none" for value in (near, far)]
            lines.append(f"  {head}: mean distance {both[0]} to original positives, {both[1]} to original negatives")
    rows: list[Row] = [{"model": name, **row} for name, one in found.items() for row in one.rows]
    places = {picture.photograph.name: {n: p.to_dict() for n, p in picture.places.items()} for picture in shown}
    return Found({"models": told, "places": places}, {"queries": rows}, lines)


INSTRUMENTS: dict[str, Callable[[Any, Sequence[Any], Iterable[Any]], Found]] = {
    "discriminability": discriminability,
    "attention": attention,
    "instability": instability,
    "distances": distances,
    "queries": queries,
}
