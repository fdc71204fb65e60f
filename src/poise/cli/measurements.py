"""Measurements of the Co-DETR article: ``poise lab discriminability``, ``attention``, ``instability``, and others."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from poise.cli.arguments import CommandLineError, DataPaths, data_name
from poise.cli.arguments import parse as parse_words
from poise.cli.lab_models import load_methods, open_images, select_images
from poise.suggestions import plural

if TYPE_CHECKING:
    from poise.lab.annotated_image import AnnotatedImage
    from poise.lab.measurements import ScoreMap
    from poise.lab.methods import Method
    from poise.lab.separation import Separation

TableRow = Mapping[str, Any]


@dataclass(frozen=True)
class Arguments:
    """Measure a property of one or more models over a data set."""

    models: Positional[tuple[str, ...]]
    """Model files, run folders, NAME=WEIGHTS or NAME (random weights); of instability the states of a training in
    order, then further trainings, each after the word vs."""
    data: DataPaths
    """The data set: a folder or file in COCO, YOLO, Pascal VOC or LVIS layout; given several times, they are joined."""
    class_map: dict[str, str | None] = field(default_factory=dict)
    """Other names of classes: car vehicle van vehicle person null. null drops a class, ignore makes its objects regions
    to ignore. By default as in the training of the model."""
    split: str | None = None
    """Split of the data set; by default val, else test, else the images that the training of
    the first run held out, else the only split."""
    images: int = 0
    """Number of images, evenly spaced over the data set; 0: all."""
    examples: int = 4
    """Number of images in the figure."""
    out: Path = Path("lab")
    """The folder for numbers and figures."""
    seed: int = 0
    """Seed of random samplers."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto takes a GPU where there is one."""
    on_bad_data: Literal["error", "skip"] = "error"
    """Faulty records (poise check lists them): stop, or leave them out."""
    follow_links: bool = False
    """Read what links in the data folder lead to; otherwise such links are refused."""


@dataclass(frozen=True)
class FeatureArguments(Arguments):
    """Measure how well features separate objects from background: IoF-IoB curves and maps."""

    features: Literal["auto", "neck", "backbone"] = "auto"
    """auto: the encoder's memory where there is an encoder, else the neck's pyramid."""


@dataclass(frozen=True)
class AttentionArguments(Arguments):
    """Measure how well the cross-attention of positive queries separates objects from background."""

    layer: int = -1
    """Decoder layer, from 0; -1: the last."""


@dataclass(frozen=True)
class MeasurementResult:
    """Numbers, tables (by file name) and printed lines of a measurement, whose figures are drawn."""

    numbers: dict[str, Any]
    tables: dict[str, list[TableRow]]
    lines: list[str]


def parse(command: str, words: Sequence[str]) -> Arguments:
    """The arguments of one measurement."""
    kinds: dict[str, type[Arguments]] = {"discriminability": FeatureArguments, "attention": AttentionArguments}
    arguments = parse_words(kinds.get(command, Arguments), f"poise lab {command}", words)
    if not arguments.models or arguments.images < 0 or arguments.examples < 0:
        raise CommandLineError(f"poise lab {command} takes at least one model; --images and --examples at least 0")
    if command == "instability" and any(len(states) < 2 for states in split_series(arguments.models)):
        raise CommandLineError(
            "poise lab instability takes two or more states of a training in order: A B [C …] [vs D E …]"
        )
    return arguments


def split_series(models: Sequence[str]) -> list[list[str]]:
    """Split the models at the word ``vs``."""
    parts: list[list[str]] = [[]]
    for word in models:
        if word == "vs":
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def run(command: str, arguments: Arguments) -> int:
    """Measure, write and print."""
    notes: list[str] = []
    image_set = open_images(arguments, notes)
    words = [word for word in arguments.models if word != "vs"]
    methods = load_methods(words, image_set, arguments.device, notes)
    result = MEASUREMENTS[command](arguments, methods, select_images(image_set, arguments.images))
    numbers = {"data": ", ".join(map(str, arguments.data)), "notes": notes, **result.numbers}
    _write(command, arguments.out, numbers, result.tables)
    for line in (*result.lines, *(f"note: {note}" for note in notes)):
        print(line)
    print(f"{command}.json, tables and figures: {arguments.out}")
    return 0


def _write(command: str, folder: Path, numbers: dict[str, Any], tables: Mapping[str, Iterable[TableRow]]) -> None:
    from poise.storage import write_text_atomically

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(numbers, indent=1, ensure_ascii=False)
    write_text_atomically(folder / f"{command}.json", text + "\n")
    for name, rows in tables.items():
        write_text_atomically(folder / f"{name}.csv", table_text(list(rows)))


def table_text(rows: Sequence[TableRow]) -> str:
    """Rows with the same columns as CSV; undefined numbers are left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["image"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _measure_curves(
    command: str,
    arguments: Arguments,
    methods: Sequence[Method],
    images: Iterable[AnnotatedImage],
    score_map: ScoreMap,
    title: str,
) -> MeasurementResult:
    """IoF-IoB curves of discriminability or attention."""
    from poise.lab.measurement_figures import draw_curves, draw_maps
    from poise.lab.measurements import measure_separation

    results, examples = measure_separation(methods, images, score_map, arguments.examples)
    draw_curves(results, arguments.out / f"{command}.png", f"{title} on {data_name(arguments.data)}")
    if examples:
        draw_maps(examples, arguments.out / f"{command}-maps.png", title)
    numbers = {"models": {name: one.to_dict() for name, one in results.items()}}
    tables: dict[str, list[TableRow]] = {
        command: [row for name, one in results.items() for row in _curve_rows(name, one)],
        f"{command}-images": [{"model": name, **row} for name, one in results.items() for row in one.rows],
    }
    return MeasurementResult(numbers, tables, [_separation_line(name, one) for name, one in results.items()])


def _curve_rows(name: str, one: Separation) -> list[TableRow]:
    numbers = one.to_dict()
    if numbers["curves"] is None:
        return []
    columns = (numbers["thresholds"], numbers["curves"]["pooled"]["iof"], numbers["curves"]["pooled"]["iob"])
    return [{"model": name, "threshold": s, "iof": f, "iob": b} for s, f, b in zip(*columns, strict=True)]


def _separation_line(name: str, one: Separation) -> str:
    left_out = f"left out: {one.without_foreground} without objects, {one.without_background} without background"
    if not one.images:
        return f"{name}: no image could be measured ({left_out})"
    means = f"mean score {one.mean('inside'):.3f} in objects, {one.mean('outside'):.3f} outside"
    return f"{name}: contrast {one.mean('contrast'):.4f}, {means}; {plural(one.images, 'image')} ({left_out})"


def discriminability(arguments: Any, methods: Sequence[Method], images: Iterable[AnnotatedImage]) -> MeasurementResult:
    """IoF-IoB curves of features."""
    from poise.lab.measurements import feature_scores

    score_map = partial(feature_scores, source=arguments.features)
    source = {"auto": "encoder (or pyramid)"}.get(arguments.features, arguments.features)
    return _measure_curves(
        "discriminability", arguments, methods, images, score_map, f"Discriminability of {source} features"
    )


def attention(arguments: Any, methods: Sequence[Method], images: Iterable[AnnotatedImage]) -> MeasurementResult:
    """IoF-IoB curves of cross-attention."""
    from poise.lab.measurements import attention_scores

    score_map = partial(attention_scores, layer=arguments.layer)
    return _measure_curves("attention", arguments, methods, images, score_map, "Cross-attention of positive queries")


def instability(arguments: Arguments, methods: Sequence[Method], images: Iterable[AnnotatedImage]) -> MeasurementResult:
    """Priors whose object changes from one state to the next."""
    from poise.lab.measurement_figures import draw_instability
    from poise.lab.measurements import measure_instability

    rest = iter(methods)
    series = [[next(rest) for _ in states] for states in split_series(arguments.models)]
    results = measure_instability(series, images, arguments.seed)
    by_series = [{(a.name, b.name): results[a.name, b.name] for a, b in pairwise(states)} for states in series]
    draw_instability(
        by_series, arguments.out / "instability.png", f"Instability of matching on {data_name(arguments.data)}"
    )
    steps = [(a, b, stage, one) for (a, b), stages in results.items() for stage, one in stages.items()]
    numbers = [{"before": a, "after": b, "stage": stage, **one.to_dict()} for a, b, stage, one in steps]
    rows: list[TableRow] = [{"before": a, "after": b, "stage": s, **row} for a, b, s, one in steps for row in one.rows]
    lines = [
        f"{one['before']} to {one['after']}, {one['stage']}: the object of {one['instability']:.2f} of "
        f"{one['priors']} priors per image changes, {100 * one['objects_rematched']:.1f} % of "
        f"{plural(one['objects'], 'object')} are matched with other priors"
        for one in numbers
    ]
    return MeasurementResult({"steps": numbers}, {"instability": rows}, lines)


def distances(arguments: Arguments, methods: Sequence[Method], images: Iterable[AnnotatedImage]) -> MeasurementResult:
    """Divergences between the class activation maps of a model's heads."""
    from poise.lab.conflict import none_if_nan
    from poise.lab.measurement_figures import draw_conflict, draw_maps
    from poise.lab.measurements import measure_conflict

    results, examples = measure_conflict(methods, images, arguments.seed, arguments.examples)
    title = f"KL divergence of class activation maps of heads, {data_name(arguments.data)}"
    draw_conflict(results, arguments.out / "distances.png", title)
    if examples:
        draw_maps(examples, arguments.out / "distances-maps.png", "Class activation maps")
    rows: list[TableRow] = [
        {"model": name, "head": i, "other": j, "divergence": none_if_nan(one.divergence(i, j))}
        for name, one in results.items()
        for i in one.heads
        for j in one.heads
        if i != j
    ]
    numbers = {name: one.to_dict() for name, one in results.items()}
    lines = [_conflict_line(name, one) for name, one in numbers.items()]
    return MeasurementResult({"models": numbers}, {"distances": rows}, lines)


def _conflict_line(name: str, numbers: Mapping[str, Any]) -> str:
    distance = ", ".join(f"{head} {'-' if v is None else f'{v:.3f}'}" for head, v in numbers["distance"].items())
    images = f"{plural(numbers['images'], 'image')} (left out: {numbers['without_objects']} without objects)"
    return f"{name}: distance to the other heads {distance}; {images}"


def queries(arguments: Arguments, methods: Sequence[Method], images: Iterable[AnnotatedImage]) -> MeasurementResult:
    """Distances between auxiliary queries and the decoder's queries."""
    from poise.lab.measurement_figures import draw_queries
    from poise.lab.measurements import measure_queries

    results, examples = measure_queries(methods, images, arguments.seed, arguments.examples)
    draw_queries(results, examples, arguments.out / "queries.png", f"Queries on {data_name(arguments.data)}")
    numbers = {name: one.to_dict() for name, one in results.items()}
    lines = []
    for name, one in numbers.items():
        counts = ", ".join(f"{count:.1f} {kind}" for kind, count in one["queries_per_image"].items())
        left_out = f"{plural(one['images'], 'image')} (left out: {one['without_objects']} without objects)"
        lines.append(f"{name}: queries per image: {counts}; {left_out}")
        for head, distance in one["distance"].items():
            near, far = (distance[f"to_{kind}"]["all_pairs"] for kind in ("positive", "negative"))
            both = [f"{value:.3f}" if value is not None else "-" for value in (near, far)]
            lines.append(f"  {head}: mean distance {both[0]} to positive, {both[1]} to negative queries of the decoder")
    rows: list[TableRow] = [{"model": name, **row} for name, one in results.items() for row in one.rows]
    centers = {example.image.name: {n: q.to_dict() for n, q in example.queries.items()} for example in examples}
    return MeasurementResult({"models": numbers, "queries": centers}, {"queries": rows}, lines)


Measurement = Callable[[Any, Sequence[Any], Iterable[Any]], MeasurementResult]
MEASUREMENTS: dict[str, Measurement] = {
    "discriminability": discriminability,
    "attention": attention,
    "instability": instability,
    "distances": distances,
    "queries": queries,
}
