"""``poise lab assign``: one label assignment of one image, worked out step by step."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from poise.cli.arguments import CommandLineError, DataPaths
from poise.cli.lab_models import load_methods, open_images, read_annotated
from poise.suggestions import did_you_mean

if TYPE_CHECKING:
    from poise.data import ImageSet
    from poise.lab.annotated_image import AnnotatedImage
    from poise.lab.methods import Method
    from poise.lab.worked_example import WorkedExample
    from poise.structures import Match

STAGES = ("guide", "dense", "queries", "rpn")  # by default the first of them that a model has


@dataclass(frozen=True)
class Arguments:
    """Work out one label assignment of one image: every tensor with its shape, matrices, conflicts, the result."""

    model: Positional[str]
    """A model file, a run folder, NAME=WEIGHTS, or NAME (random weights: the first step of a training)."""
    data: DataPaths
    """The data set: a folder or file in COCO, YOLO, Pascal VOC or LVIS layout; given several times, they are joined."""
    class_map: dict[str, str | None] = field(default_factory=dict)
    """Other names of classes: car vehicle van vehicle person null. null drops a class, ignore makes its objects regions
    to ignore. By default as in the training of the model."""
    image: str = "0"
    """Number of the image in the split, from 0, or its file name."""
    weights: str | None = None
    """Weights of a named model: coco, a file, or the original's name of a published checkpoint."""
    assigner: str | None = None
    """Another assigner for a dense detector: atss, "sim_ota(topk=5)", …"""
    stage: str | None = None
    """Stage of the model; by default guide, dense, queries or rpn, the first of these that it has."""
    object: int | None = None
    """Number of the object that is shown in detail; by default the one with most conflicts."""
    split: str | None = None
    """Split of the data set; by default val, else test, else the images that the training of
    the run held out, else the only split."""
    out: Path = Path("assign.html")
    """The page; with the ending .png the figure alone."""
    tensors: Path | None = None
    """Write all tensors to this file (.safetensors)."""
    json: bool = False
    """Print everything as JSON; tensors of more than 200,000 values are left out."""
    seed: int = 0
    """Seed of random samplers."""
    on_bad_data: Literal["error", "skip"] = "error"
    """Faulty records (poise check lists them): stop, or leave them out."""
    follow_links: bool = False
    """Read what links in the data folder lead to; otherwise such links are refused."""

    @property
    def models(self) -> tuple[str, ...]:
        """The model, as the other commands of the lab name it."""
        return (self.model if self.weights is None else f"{self.model}={self.weights}",)


def run(arguments: Arguments) -> int:
    """Print the example, and write the page or the figure."""
    if arguments.out.suffix not in (".html", ".png"):
        raise CommandLineError(f"--out {arguments.out}: the ending is .html (the page) or .png (the figure alone)")
    from poise.export import is_exported
    from poise.lab.methods import with_assigner
    from poise.lab.worked_page import example_page, figure_bytes
    from poise.lab.worked_text import default_object, to_dict, to_text
    from poise.storage import write_bytes_atomically, write_text_atomically

    if Path(arguments.model).is_file() and is_exported(arguments.model):
        raise ValueError(
            f"{arguments.model}: an exported file has no assigner; take the run or checkpoint it came from"
        )
    notes: list[str] = []
    image_set = open_images(arguments, notes)
    image = read_annotated(image_set, _image_index(image_set, arguments.image))
    method = load_methods(arguments.models, image_set, "cpu", notes)[0]
    if arguments.assigner is not None:
        method = with_assigner(method, arguments.assigner)
    stage, example = _work_out(method, image, arguments, notes)
    number = default_object(example) if arguments.object is None else arguments.object
    if arguments.object is not None and not 0 <= number < example.num_objects:
        raise ValueError(f"--object {number}: {image.name} has {example.num_objects} objects, from 0 on")
    title = f"{method.model.name}, {stage}: {type(example.assigner).__name__} on {image.name}"
    names = method.model.class_names
    figure = figure_bytes(example, image.pixels, number, names, title=title)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    if arguments.out.suffix == ".png":
        write_bytes_atomically(arguments.out, figure)
    else:
        write_text_atomically(arguments.out, example_page(example, figure, number, names, title=title, notes=notes))
    if arguments.tensors is not None:
        _write_tensors(example, arguments.tensors)
    if arguments.json:
        head = {"model": method.model.name, "image": image.name, "stage": stage, "notes": notes}
        print(json.dumps({**head, **to_dict(example, names)}, ensure_ascii=False, allow_nan=False))
        return 0
    print(f"{title}\n{to_text(example, number, names)}\n")
    for note in notes:
        print(f"note: {note}")
    print(f"{'figure' if arguments.out.suffix == '.png' else 'page'}: {arguments.out}")
    return 0


def _image_index(image_set: ImageSet, wanted: str) -> int:
    """The index of the image that ``--image`` names."""
    if wanted.isdecimal():
        if int(wanted) >= len(image_set):
            raise ValueError(f"--image {wanted}: split {image_set.name!r} has images 0 to {len(image_set) - 1}")
        return int(wanted)
    names = [image_set.path(i).name for i in range(len(image_set))]
    if wanted not in names:
        raise ValueError(f"--image {wanted}: no such file in split {image_set.name!r}{did_you_mean(wanted, names)}")
    return names.index(wanted)


def _work_out(
    method: Method, image: AnnotatedImage, arguments: Arguments, notes: list[str]
) -> tuple[str, WorkedExample]:
    """Run a training step on the image, and work out the assignment of a stage."""
    from poise.lab.explain import run_step
    from poise.lab.worked_example import work_out

    batch = method.batch(image)
    output = run_step(method.model.network, batch, method.model.progress, arguments.seed)
    known = {name: match for name, match in output.matches.items() if match.assigner is not None}
    stage = _stage(arguments.stage, known, output.matches, method.model.name)
    match = known[stage]
    if match.sample is None and stage.endswith("rcnn"):
        notes.append("the assignment of the sampled regions alone; the step assigns all proposals, then samples")
    truth = batch.truth if match.truth is None else match.truth
    return stage, work_out(match.assigner, match.predictions, truth)


def _stage(wanted: str | None, known: dict[str, Match], all_stages: dict[str, Match], model: str) -> str:
    if not known:
        raise ValueError(
            f"'{model}' has no stage with an assigner of its own (stages: {', '.join(all_stages) or 'none'})"
        )
    if wanted is None:
        return next((stage for stage in STAGES if stage in known), next(iter(known)))
    if wanted in known:
        return wanted
    reason = "takes over the assignment of another stage" if wanted in all_stages else "does not exist"
    raise ValueError(f"--stage {wanted} {reason}; '{model}' has {', '.join(known)}{did_you_mean(wanted, list(known))}")


def _write_tensors(example: WorkedExample, path: Path) -> None:
    from poise.storage import save_safetensors

    tensors = {name: step.values for name, step in example.steps.items()}
    tensors |= {"columns": example.columns, "assigned": example.assigned, "ignored": example.ignored}
    texts = {name: f"{', '.join(step.axes)}: {step.title}; {step.formula}" for name, step in example.steps.items()}
    save_safetensors(path, {name: one.clone().contiguous() for name, one in tensors.items()}, texts)
    print(f"tensors: {path}", file=sys.stderr)
