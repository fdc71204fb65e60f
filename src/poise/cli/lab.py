"""``poise lab``: what every place of a detector was told, as a page in the browser or in numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from poise.cli.arguments import CommandLineError
from poise.cli.arguments import parse as parse_words
from poise.suggestions import did_you_mean

if TYPE_CHECKING:
    from poise.data import ImageSet
    from poise.lab.methods import Method
    from poise.lab.page import LabPage
    from poise.lab.scene import Photograph

USAGE = """usage: poise lab show MODEL --data PATH [--images N] [--out page.html] …
       poise lab compare A B [C …] --data PATH [--images N] [--out page.html] …
       poise lab stats A [B …] --data PATH [--images N] [--out FOLDER] …
       poise lab discriminability A [B …] --data PATH [--features neck] [--out FOLDER] …
       poise lab attention A [B …] --data PATH [--layer N] [--out FOLDER] …
       poise lab instability A B [C …] [vs D E …] --data PATH [--out FOLDER] …
       poise lab distances A [B …] --data PATH [--out FOLDER] …
       poise lab queries A [B …] --data PATH [--out FOLDER] …

A model is a model file, a run folder, NAME=WEIGHTS (a model and weights that its authors published) or NAME (random
weights). An assigner's name stands for the first model's predictions, judged by that assigner.
poise lab show --help explains the options."""


@dataclass(frozen=True)
class Arguments:
    """Show what the losses of a detector weigh at every place."""

    models: Positional[tuple[str, ...]]
    """Model files, run folders, NAME=WEIGHTS or NAME; beyond the first also names of assigners (atss, sim_ota, …)."""
    data: Path
    """The data set: a folder or file in COCO, YOLO, Pascal VOC or LVIS layout."""
    split: str | None = None
    """Which part of it; may be left out where there is only one."""
    images: int = 8
    """How many images, evenly spread over the data set; 0 takes all (lab stats: 0 by default)."""
    out: Path = Path("lab.html")
    """The page (of lab stats: the folder)."""
    megabytes: float = 40.0
    """What the page may be large; images beyond are only counted."""
    seed: int = 0
    """Of samplers that choose by chance."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto takes a GPU where there is one."""
    on_bad_data: Literal["error", "skip"] = "error"
    """Faulty records (poise check lists them): stop, or leave them out."""


@dataclass(frozen=True)
class Request:
    """A subcommand and its arguments."""

    command: str
    arguments: Arguments


COMMANDS = {"show": (1, 1), "compare": (2, 12), "stats": (1, 12)}  # how many models each takes


OTHERS = ("discriminability", "attention", "instability", "distances", "queries")  # of cli/instruments.py


def parse(words: Sequence[str]) -> Any:
    """The subcommand and its arguments."""
    if not words:
        raise CommandLineError("poise lab needs show, compare or stats first; poise lab --help explains them")
    if words[0] in ("-h", "--help"):
        print(USAGE)
        raise SystemExit(0)
    command, rest = words[0], words[1:]
    if command in OTHERS:
        from poise.cli import instruments

        return instruments.parse(command, rest)
    if command not in COMMANDS:
        known = (*COMMANDS, *OTHERS)
        raise CommandLineError(
            f"no command 'lab {command}'{did_you_mean(command, known)}; there are {', '.join(known)}"
        )
    if command == "stats":
        rest = [*_default(rest, "--out", "lab"), *_default(rest, "--images", "0"), *rest]
    arguments = parse_words(Arguments, f"poise lab {command}", rest)
    least, most = COMMANDS[command]
    if not least <= len(arguments.models) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise CommandLineError(f"poise lab {command} takes {wanted} models, {len(arguments.models)} were given")
    if arguments.images < 0 or arguments.megabytes <= 0:
        raise CommandLineError("--images is at least 0 (all) and --megabytes more than 0")
    return Request(command, arguments)


def _default(words: Sequence[str], option: str, value: str) -> list[str]:
    given = any(word == option or word.startswith(option + "=") for word in words)
    return [] if given else [option, value]


def run(request: Any) -> int:
    """Write the page or the numbers."""
    if not isinstance(request, Request):
        from poise.cli import instruments

        return instruments.run(request)
    arguments = request.arguments
    from poise.data import open_data

    image_set = open_data(arguments.data, arguments.split, arguments.on_bad_data)
    if not len(image_set):
        raise ValueError(f"{arguments.data} has no images to look at")
    notes: list[str] = []
    methods = methods_of(arguments, image_set, notes)
    page = _examined(request, methods, image_set, notes)
    return _write_numbers(page, arguments) if request.command == "stats" else _write_page(page, arguments)


def _examined(request: Request, methods: Sequence[Method], image_set: ImageSet, notes: list[str]) -> LabPage:
    from poise.lab.encoders import EncoderLook
    from poise.lab.page import LabPage

    arguments = request.arguments
    names = [method.name for method in methods]
    title = f"{', '.join(names[:-1])}{' and ' if names[1:] else ''}{names[-1]} on {arguments.data.name}"
    page = LabPage(title, names, image_set.class_names, arguments.megabytes, notes)
    if request.command != "stats":
        page.encoders = {one.name: EncoderLook(one, arguments.seed) for one in methods if EncoderLook.fits(one)}
    for photograph in photographs(image_set, arguments.images):
        judged = {method.name: method.compute_losses(photograph, arguments.seed) for method in methods}
        looks = {name: look.add(photograph) for name, look in page.encoders.items()}
        page.add(photograph, judged, shown=request.command != "stats", encoders=looks)
    return page


def photographs(image_set: ImageSet, wanted: int) -> Iterator[Photograph]:
    """Images evenly spread over the set."""
    from poise.lab.scene import Photograph

    count = min(wanted or len(image_set), len(image_set))
    for i in range(count):
        number = i * len(image_set) // count
        record = image_set[number]
        image = image_set.read(number)
        yield Photograph(record.path.name, image, record.boxes, record.labels, record.crowd | record.ignore)


def methods_of(arguments: Any, image_set: ImageSet, notes: list[str]) -> list[Method]:
    """What the words of ``arguments.models`` mean, each with a name of its own."""
    from poise.lab.methods import Method, distinct, with_assigner
    from poise.models.assigners import ASSIGNERS

    found: list[Method] = []
    for word in arguments.models:
        if found and word in ASSIGNERS and not Path(word).exists():
            found.append(with_assigner(found[0], word))
            continue
        model = _model(word, image_set, arguments.device, notes)
        found.append(Method(_short(word, model), model, _classes(model, image_set)))
    names = distinct([method.name for method in found])
    return [Method(name, method.model, method.classes) for name, method in zip(names, found, strict=True)]


def _model(word: str, image_set: ImageSet, device: str, notes: list[str]) -> Any:
    """The model that a word of the command line means, in evaluation mode."""
    from poise.api import Detector
    from poise.models import list_models

    name, sign, weights = word.partition("=")
    if sign and name in list_models():
        return Detector(_published(name, weights, notes), device).model
    if word in list_models() and not Path(word).exists():
        notes.append(f"{word} has random weights: what is shown is the first step of a training")
        detector = Detector(word, device, num_classes=len(image_set.categories))
        detector.model.set_classes(image_set.class_names, image_set.category_ids)
        return detector.model
    return Detector(word, device).model


def _published(name: str, weights: str, notes: list[str]) -> Any:
    """A model with published weights; where these lack its guide, the model without a guide."""
    from poise.models import create_model
    from poise.published import load_published

    model = create_model(name)
    report = load_published(model, weights)
    if any(key.startswith("guide.") for key in report.missing):
        notes.append(f"{Path(weights).name} holds no guide: the head's own predictions decide the assignment")
        model = create_model(name, guide_depth=0)
        report = load_published(model, weights)
    if report.missing:
        notes.append(f"{Path(weights).name} leaves {len(report.missing)} tensors of {name} random")
    return model


def _short(word: str, model: Any) -> str:
    """What the page calls a model: its name, with the folder of a run for telling runs apart."""
    path = Path(word)
    if not path.exists():  # NAME=WEIGHTS; folders of ablations can have that sign too
        return str(model.name)
    folder = path.resolve().parent if path.is_file() else path.resolve()
    run = f"{folder.parent.name}/{folder.name}" if folder.name.startswith("seed-") else folder.name
    epoch = f", {path.stem}" if path.is_file() and path.stem not in ("best", "last") else ""
    return f"{model.name}, {run}{epoch}"


def _classes(model: Any, image_set: ImageSet) -> tuple[int, ...]:
    """The data's class of each of the model's, -1 where it has none."""
    from poise.evaluate.classes import category_of_classes

    categories = [{"id": one.id, "name": one.name} for one in image_set.categories]
    place = {number: i for i, number in enumerate(image_set.category_ids)}
    found = category_of_classes(model.class_names, model.category_ids, categories)
    return tuple(-1 if number is None else place[number] for number in found)


def _write_page(page: LabPage, arguments: Arguments) -> int:
    from poise.storage import write_text_atomically

    text = page.html()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(arguments.out, text)
    print(f"{len(page.images)} images, {arguments.out.stat().st_size / 1e6:.1f} MB: {arguments.out}")
    for note in page.remarks():
        print(f"note: {note}")
    return 0


def _write_numbers(page: LabPage, arguments: Arguments) -> int:
    """``stats.json``, the same as ``stats.csv``, ``objects.csv`` and a figure for each stage."""
    from poise.lab.figures import draw_supervision
    from poise.lab.statistics import csv_text, flat_rows
    from poise.storage import write_text_atomically

    arguments.out.mkdir(parents=True, exist_ok=True)
    numbers = {"data": str(arguments.data), "notes": page.remarks(), **page.to_dict()}
    write_text_atomically(arguments.out / "stats.json", json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    rows = [row for (m, stage), one in page.supervision.items() for row in one.to_csv(m, stage, page.names)]
    write_text_atomically(arguments.out / "objects.csv", csv_text(rows))
    table = csv_text(flat_rows(numbers["stages"]), ("method", "stage", "number", "value"))
    write_text_atomically(arguments.out / "stats.csv", table)
    for stage in dict.fromkeys(stage for _, stage in page.supervision):
        found = {method: one for (method, name), one in page.supervision.items() if name == stage}
        picture = arguments.out / f"{stage.replace('/', '-')}.png"
        draw_supervision(found, picture, f"{stage}: {', '.join(found)}", page.names)
    for one in numbers["stages"]:
        per_object = f"{one['positives_per_object']:.1f} positives an object, {one['without_positive']} without"
        print(f"{one['method']}, {one['stage']}: {one['objects']} objects in {one['images']} images, {per_object}")
    print(f"stats.json, stats.csv, objects.csv and figures: {arguments.out}")
    return 0
