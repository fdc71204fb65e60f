"""Models and images of the ``poise lab`` commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poise.cli.arguments import data_name, evaluation_images
from poise.storage.coco import CocoCategory
from poise.suggestions import closest, plural

if TYPE_CHECKING:
    from poise.data import ImageSet
    from poise.detection_model import DetectionModel
    from poise.detection_model.description import Options
    from poise.lab.annotated_image import AnnotatedImage
    from poise.lab.methods import Method


def open_images(arguments: Any, notes: list[str]) -> ImageSet:
    """Open the split that the arguments select (``data``, ``split``, …); adds to ``notes``.

    Without a split to validate on, these are the images that the training of the first run among ``models`` held out
    (``data.val_share``), as in ``poise eval``.

    Raises:
        ValueError: the split has no images.
    """
    from poise.data.hold_out import held_out_names, validation_names

    lists = {folder: names for folder in _run_folders(arguments.models) if (names := held_out_names(folder))}
    run = next(iter(lists), None)
    image_set, note = evaluation_images(arguments, run, _stored_class_map(arguments.models))
    if not len(image_set):
        raise ValueError(f"{data_name(arguments.data)}: split {image_set.name!r} has no images")
    if note:
        notes.append(note)
    if arguments.split is None and run is not None:
        used = set(validation_names(image_set))
        notes += [
            f"{other} held out other images than {run}: it was trained on some of those that are used"
            for other, names in lists.items()
            if used <= lists[run] and not used <= names
        ]
    return image_set


def _run_folders(words: Sequence[str]) -> list[Path]:
    """Folders of the runs and model files among the words of the command line, ``NAME=WEIGHTS`` included."""
    paths = [Path(word) if Path(word).exists() else Path(word.partition("=")[2]) for word in words]
    return list(dict.fromkeys(path.parent if path.is_file() else path for path in paths if path.name))


def _stored_class_map(models: Sequence[str]) -> dict[str, str | None]:
    """The class map with which the first of the models was trained that is a file or run folder."""
    from poise.export import is_exported
    from poise.models.files import load_model

    for word in models:
        if Path(word).exists() and not (is_exported(word) and Path(word).is_file()):
            return load_model(word).class_map
    return {}


def select_images(image_set: ImageSet, count: int) -> Iterator[AnnotatedImage]:
    """Read ``count`` images, evenly spaced over the set; 0: all."""
    count = min(count or len(image_set), len(image_set))
    for i in range(count):
        yield read_annotated(image_set, i * len(image_set) // count)


def read_annotated(image_set: ImageSet, index: int) -> AnnotatedImage:
    """Read one image with its objects."""
    from poise.lab.annotated_image import AnnotatedImage

    record = image_set[index]
    pixels = image_set.read(index)
    return AnnotatedImage(record.path.name, pixels, record.boxes, record.labels, record.crowd | record.ignore)


def load_methods(words: Sequence[str], image_set: ImageSet, device: str, notes: list[str]) -> list[Method]:
    """Load the models and assigners that ``words`` name, each with a unique name; adds to ``notes``."""
    from poise.lab.methods import Method, unique_names, with_assigner

    methods: list[Method] = []
    for word in words:
        if methods and not Path(word).exists() and _is_assigner(word):
            methods.append(with_assigner(methods[0], word))
            continue
        model = _load_model(word, image_set, device, notes)
        methods.append(Method(_display_name(word, model), model, _data_classes(model, image_set)))
    names = unique_names([method.name for method in methods])
    return [replace(method, name=name) for name, method in zip(names, methods, strict=True)]


def _is_assigner(word: str) -> bool:
    """Whether a word is the name of an assigner, or nearly, alone or with options as in ``atss(topk=15)``."""
    from poise.models.assigners import ASSIGNERS
    from poise.models.catalog import is_model, list_models

    name = word.partition("(")[0].strip()
    if name in ASSIGNERS or is_model(name):  # is_model() imports plug-ins
        return name in ASSIGNERS
    return name.isidentifier() and closest(name, (*ASSIGNERS, *list_models())) in ASSIGNERS


def _load_model(word: str, image_set: ImageSet, device: str, notes: list[str]) -> DetectionModel:
    """The model that a word of the command line names, in evaluation mode."""
    from poise.api import Detector
    from poise.models.catalog import is_model

    name, sign, weights = word.partition("=")
    if sign and is_model(name):
        return Detector(_load_published(name, weights, notes), device).model
    if not Path(word).exists() and is_model(word):
        notes.append(f"{word} has random weights: this is the first step of a training")
        detector = Detector(word, device, num_classes=len(image_set.categories))
        detector.model.set_classes(image_set.class_names, image_set.category_ids)
        return detector.model
    return Detector(word, device).model


def _load_published(name: str, weights: str, notes: list[str]) -> DetectionModel:
    """A model with published weights; without its guide where the file does not contain one."""
    from poise.api.opening import open_model
    from poise.models import create_model
    from poise.published import load_published
    from poise.published.sources import checkpoint_named, is_original, locate_weights

    one, file = checkpoint_named(weights, name), locate_weights(weights, name)
    if not is_original(file):
        return open_model(name, weights).model
    options: Options = one.options if one is not None else {}
    model = create_model(name, **options)
    report = load_published(model, file)
    if any(key.startswith("guide.") for key in report.missing):
        notes.append(f"{Path(weights).name} has no guide: the predictions of the head decide the assignment")
        model = create_model(name, **{**options, "guide_depth": 0})
        report = load_published(model, file)
    if report.missing:
        count = len(report.missing)
        notes.append(f"{Path(weights).name} does not set {plural(count, 'tensor')} of {name}: random")
    return model


def _display_name(word: str, model: DetectionModel) -> str:
    """Name of the model, with the folder of a run to tell runs apart."""
    path = Path(word)
    if not path.exists():  # NAME=WEIGHTS; folders of ablations may contain that sign too
        return str(model.name)
    folder = path.resolve().parent if path.is_file() else path.resolve()
    run = f"{folder.parent.name}/{folder.name}" if folder.name.startswith("seed-") else folder.name
    epoch = f", {path.stem}" if path.is_file() and path.stem not in ("best", "last") else ""
    return f"{model.name}, {run}{epoch}"


def _data_classes(model: DetectionModel, image_set: ImageSet) -> tuple[int, ...]:
    """Data set class of each class of the model, -1: none."""
    from poise.evaluate.classes import match_categories

    categories: list[CocoCategory] = [{"id": one.id, "name": one.name} for one in image_set.categories]
    position = {category_id: i for i, category_id in enumerate(image_set.category_ids)}
    matched = match_categories(model.class_names, model.category_ids, categories)
    return tuple(-1 if category_id is None else position[category_id] for category_id in matched)
