"""``poise lab``: loss weights of every prior of a detector, as a page for the browser or as statistics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from poise.cli import lab_assign, lab_figures, measurements
from poise.cli.arguments import CommandLineError, DataPaths, data_name
from poise.cli.arguments import parse as parse_words
from poise.cli.lab_models import load_methods, open_images, select_images
from poise.suggestions import did_you_mean, plural

if TYPE_CHECKING:
    from poise.data import ImageSet
    from poise.lab.methods import Method
    from poise.lab.page import LabPage

USAGE = """usage: poise lab show MODEL --data PATH [--images N] [--out page.html] …
       poise lab compare A B [C …] --data PATH [--images N] [--out page.html] …
       poise lab assign MODEL --data PATH [--image N] [--assigner NAME] [--out page.html] …
       poise lab stats A [B …] --data PATH [--images N] [--out FOLDER] …
       poise lab discriminability A [B …] --data PATH [--features neck] [--out FOLDER] …
       poise lab attention A [B …] --data PATH [--layer N] [--out FOLDER] …
       poise lab instability A B [C …] [vs D E …] --data PATH [--out FOLDER] …
       poise lab distances A [B …] --data PATH [--out FOLDER] …
       poise lab queries A [B …] --data PATH [--out FOLDER] …
       poise lab weights MODEL --data PATH [--image N] [--object N] [--out FOLDER] …
       poise lab curves [--out FOLDER] …

A model is a model file, a run folder, NAME=WEIGHTS (a model with published weights) or NAME (random weights). After the
first model, the name of an assigner stands for the first model with that assigner.
poise lab show --help lists the options."""


@dataclass(frozen=True)
class Arguments:
    """Show the loss weights of every prior of a detector."""

    models: Positional[tuple[str, ...]]
    """Model files, run folders, NAME=WEIGHTS or NAME; after the first also assigners (atss, "atss(topk=15)", …)."""
    data: DataPaths
    """The data set: a folder or file in COCO, YOLO, Pascal VOC or LVIS layout; given several times, they are joined."""
    class_map: dict[str, str | None] = field(default_factory=dict)
    """Other names of classes: car vehicle van vehicle person null. null drops a class, ignore makes its objects regions
    to ignore. By default as in the training of the model."""
    split: str | None = None
    """Split of the data set; by default val, else test, else the images that the training of
    the first run held out, else the only split."""
    images: int = 8
    """Number of images, evenly spaced over the data set; 0: all (default of lab stats)."""
    out: Path = Path("lab.html")
    """The page; of lab stats the folder."""
    max_megabytes: float = 40.0
    """Maximum size of the page; images beyond it only enter the statistics."""
    seed: int = 0
    """Seed of random samplers."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto takes a GPU where there is one."""
    on_bad_data: Literal["error", "skip"] = "error"
    """Faulty records (poise check lists them): stop, or leave them out."""
    follow_links: bool = False
    """Read what links in the data folder lead to; otherwise such links are refused."""


COMMANDS = {"show": (1, 1), "compare": (2, 12), "stats": (1, 12)}  # minimum and maximum number of models


def parse(words: Sequence[str]) -> tuple[str, Any]:
    """The subcommand and its arguments."""
    if not words:
        raise CommandLineError("poise lab needs show, compare, assign or stats first; see poise lab --help")
    if words[0] in ("-h", "--help"):
        print(USAGE)
        raise SystemExit(0)
    command, rest = words[0], words[1:]
    if command == "assign":
        return command, parse_words(lab_assign.Arguments, "poise lab assign", rest)
    if command in measurements.MEASUREMENTS:
        return command, measurements.parse(command, rest)
    if command in lab_figures.FIGURES:
        return command, lab_figures.parse(command, rest)
    if command not in COMMANDS:
        known = (*COMMANDS, "assign", *measurements.MEASUREMENTS, *lab_figures.FIGURES)
        raise CommandLineError(
            f"no command 'lab {command}'{did_you_mean(command, known)}; there are {', '.join(known)}"
        )
    if command == "stats":
        rest = [*_default(rest, "--out", "lab"), *_default(rest, "--images", "0"), *rest]
    arguments = parse_words(Arguments, f"poise lab {command}", rest)
    minimum, maximum = COMMANDS[command]
    count = len(arguments.models)
    if not minimum <= count <= maximum:
        wanted = "1 model" if maximum == 1 else f"{minimum} to {maximum} models"
        raise CommandLineError(f"poise lab {command} takes {wanted}, but {count} {'is' if count == 1 else 'are'} given")
    if arguments.images < 0 or arguments.max_megabytes <= 0:
        raise CommandLineError("--images must be at least 0 (all), --max-megabytes greater than 0")
    return command, arguments


def _default(words: Sequence[str], option: str, value: str) -> list[str]:
    given = any(word == option or word.startswith(option + "=") for word in words)
    return [] if given else [option, value]


def run(request: tuple[str, Any]) -> int:
    """Write the page or the statistics."""
    command, arguments = request
    if command == "assign":
        return lab_assign.run(arguments)
    if command in measurements.MEASUREMENTS:
        return measurements.run(command, arguments)
    if command in lab_figures.FIGURES:
        return lab_figures.run(command, arguments)
    notes: list[str] = []
    image_set = open_images(arguments, notes)
    methods = load_methods(arguments.models, image_set, arguments.device, notes)
    page = _build_page(command, arguments, methods, image_set, notes)
    return _write_statistics(page, arguments) if command == "stats" else _write_page(page, arguments)


def _build_page(
    command: str, arguments: Arguments, methods: Sequence[Method], image_set: ImageSet, notes: list[str]
) -> LabPage:
    from poise.lab.encoders import EncoderPanel
    from poise.lab.page import LabPage

    names = [method.name for method in methods]
    title = f"{', '.join(names[:-1])}{' and ' if names[1:] else ''}{names[-1]} on {data_name(arguments.data)}"
    descriptions = {method.name: method.description for method in methods if method.description}
    page = LabPage(title, names, image_set.class_names, arguments.max_megabytes, notes, descriptions)
    show = command != "stats"
    if show:
        page.encoders = {one.name: EncoderPanel(one, arguments.seed) for one in methods if EncoderPanel.applies_to(one)}
    for image in select_images(image_set, arguments.images):
        results = {method.name: method.explain(image, arguments.seed) for method in methods}
        encoders = {name: panel.add(image) for name, panel in page.encoders.items()}
        page.add(image, results, show=show, encoders=encoders)
    return page


def _write_page(page: LabPage, arguments: Arguments) -> int:
    from poise.storage import write_text_atomically

    text = page.html()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(arguments.out, text)
    count = len(page.image_data)
    size = arguments.out.stat().st_size / 1e6
    print(f"{plural(count, 'image')}, {size:.1f} MB: {arguments.out}")
    for note in page.all_notes():
        print(f"note: {note}")
    return 0


def _write_statistics(page: LabPage, arguments: Arguments) -> int:
    """Write ``stats.json``, the same as ``stats.csv``, ``objects.csv`` and a figure for each stage."""
    from poise.lab.figures import draw_supervision
    from poise.lab.statistics import csv_text, flat_rows
    from poise.storage import write_text_atomically

    arguments.out.mkdir(parents=True, exist_ok=True)
    numbers = {"data": ", ".join(map(str, arguments.data)), "notes": page.all_notes(), **page.to_dict()}
    write_text_atomically(arguments.out / "stats.json", json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    rows = [row for (m, stage), one in page.supervision.items() for row in one.to_csv(m, stage, page.class_names)]
    write_text_atomically(arguments.out / "objects.csv", csv_text(rows))
    table = csv_text(flat_rows(numbers["stages"]), ("method", "stage", "name", "value"))
    write_text_atomically(arguments.out / "stats.csv", table)
    for stage in dict.fromkeys(stage for _, stage in page.supervision):
        methods = {method: one for (method, name), one in page.supervision.items() if name == stage}
        figure = arguments.out / f"{stage.replace('/', '-')}.png"
        draw_supervision(methods, figure, f"{stage}: {', '.join(methods)}", page.class_names)
    for one in numbers["stages"]:
        positives = f"{one['positives_per_object']:.1f} positives per object, {one['without_positive']} without"
        counts = f"{plural(one['objects'], 'object')} in {plural(one['images'], 'image')}"
        print(f"{one['method']}, {one['stage']}: {counts}, {positives}")
    for note in page.all_notes():
        print(f"note: {note}")
    print(f"stats.json, stats.csv, objects.csv and figures: {arguments.out}")
    return 0
