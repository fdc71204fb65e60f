"""``poise compare``: whether one trained model is better than another, by class and image by image."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from poise.cli.arguments import DataPaths, data_name, evaluation_images
from poise.suggestions import plural

if TYPE_CHECKING:
    from PIL import Image

    from poise.api import Detector
    from poise.data import ImageSet
    from poise.evaluate import Comparison, Evaluation

PICTURES = 6  # images drawn where the second is better, and as many where it is worse


@dataclass(frozen=True)
class Arguments:
    """Compare two trained models on the same images: poise compare FIRST SECOND --data PATH.

    Prints the difference of AP with a bootstrap interval, of all classes and of each class. Writes comparison.json,
    figures, pictures and report.html to a folder.
    """

    first: Positional[str]
    """A model file, a run folder or an exported file."""
    second: Positional[str]
    """The model that is compared with the first."""
    data: DataPaths
    """The data set: a folder or file in COCO, YOLO, Pascal VOC or LVIS layout; given several times, they are joined."""
    class_map: dict[str, str | None] = field(default_factory=dict)
    """Other names of classes: car vehicle van vehicle person null. null drops a class, ignore makes its objects regions
    to ignore. By default as in the training of the models, which must agree."""
    split: str | None = None
    """Split of the data set; by default val, else test, else the images that the trainings held out, else the only
    split."""
    draws: int = 1000
    """Data sets of images drawn with replacement, from which the intervals are computed."""
    confidence: float = 0.95
    """Confidence of the intervals."""
    seed: int = 0
    """Seed of the draws."""
    out: Path | None = None
    """The output folder; by default runs/compare, runs/compare-2, …"""
    batch_size: int = 8
    """Images per forward pass."""
    workers: int = 0
    """Number of processes that read images."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto takes a GPU where there is one."""
    on_bad_data: Literal["error", "skip"] = "error"
    """Faulty records (poise check lists them): stop, or leave them out."""
    follow_links: bool = False
    """Read what links in the data folder lead to; otherwise such links are refused."""
    json: bool = False
    """Print the comparison as JSON, in [0,1]; tables are in percent."""


def run(arguments: Arguments) -> int:
    """Evaluate both models, compare them, and write the page."""
    from poise.api import Detector, free_folder
    from poise.cli.compare_page import write_comparison_page
    from poise.evaluate import compare
    from poise.evaluate.comparison_figures import write_comparison_figures
    from poise.storage import write_text_atomically

    detectors = [Detector(source, arguments.device) for source in (arguments.first, arguments.second)]
    images, note = _common_images(arguments, detectors)
    if note:
        print(f"note: {note}", file=sys.stderr)
    evaluations = [one.val(images, batch_size=arguments.batch_size, workers=arguments.workers) for one in detectors]
    comparison = compare(
        evaluations[0].truth,
        evaluations[0].detections,
        evaluations[1].detections,
        names=(arguments.first, arguments.second),
        draws=arguments.draws,
        seed=arguments.seed,
        confidence=arguments.confidence,
    )
    folder = arguments.out or free_folder(Path("runs"), "compare")
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(comparison.to_dict(), indent=1, ensure_ascii=False)
    write_text_atomically(folder / "comparison.json", text + "\n")
    write_comparison_figures(comparison, folder)
    captions = _draw(comparison, evaluations, images, folder)
    write_comparison_page(folder, comparison, captions, f"{data_name(arguments.data)}, {images.name}")
    print(text if arguments.json else f"{comparison.table()}\n{folder}: report.html, comparison.json, figures")
    return 0


def _common_images(arguments: Arguments, detectors: Sequence[Detector]) -> tuple[ImageSet, str]:
    """The images on which both models are evaluated by default, and a note for the user.

    Where a training held images out of the only split, these are those that both held out, or that the one held out
    where nothing is known of the other.

    Raises:
        ValueError: the models were trained with different class maps, or have no such image in common.
    """
    from poise.data.hold_out import held_out_names

    maps = [one.model.class_map for one in detectors]
    if not arguments.class_map and maps[0] != maps[1]:
        shown = " and ".join(str(one) if one else "none" for one in maps)
        raise ValueError(f"the models were trained with different class maps ({shown}); give one with --class-map")
    folders = [one.run_folder for one in detectors]
    runs = [folder if folder is not None and held_out_names(folder) else None for folder in folders]
    found = {run: evaluation_images(arguments, run, maps[0]) for run in dict.fromkeys(runs)}
    notes = "; ".join(dict.fromkeys(note for _, note in found.values() if note))
    first, second = (found[run][0] for run in runs)
    if first.image_ids() == second.image_ids():
        return first, notes
    others = set(second.image_ids())
    common = [i for i, image_id in enumerate(first.image_ids()) if image_id in others]
    if not common:
        raise ValueError(
            f"{data_name(arguments.data)}: the trainings held out different images; --split NAME takes a whole split"
        )
    kept = f"comparing on the {plural(len(common), 'image')} that are in both"
    return first.subset(common), f"{notes}; {kept}"


def _draw(
    comparison: Comparison, evaluations: list[Evaluation], images: ImageSet, folder: Path
) -> dict[str, dict[str, str]]:
    """Draw the errors of both on the images that differ most; returns the captions of the files by kind."""
    from poise.draw import side_by_side
    from poise.evaluate import draw_errors, image_errors, match_by_score

    truth = evaluations[0].truth
    matches = [match_by_score(truth, one.detections) for one in evaluations]
    names = {record["id"]: str(record.get("name", record["id"])) for record in truth["categories"]}
    position = {record["id"]: i for i, record in enumerate(truth["images"])}
    row = {image_id: i for i, image_id in enumerate(matches[0].truth.image_ids)}
    better = [one for one in comparison.images if one.fewer_errors > 0][:PICTURES]
    worse = [one for one in reversed(comparison.images) if one.fewer_errors < 0][:PICTURES]
    captions: dict[str, dict[str, str]] = {"better": {}, "worse": {}}
    for kind, chosen in (("better", better), ("worse", worse)):
        for number, one in enumerate(chosen):
            pictures: list[Image.Image] = []
            for evaluation, matched, threshold in zip(evaluations, matches, comparison.thresholds, strict=True):
                errors = image_errors(matched, row[one.image_id], threshold.threshold)
                found, false = (
                    [evaluation.detections[i] for i in rows] for rows in (errors.true_positives, errors.false_positives)
                )
                missed = [truth["annotations"][i] for i in errors.missed]
                pictures.append(draw_errors(images.read(position[one.image_id]), found, false, missed, names=names))
            titles = [f"{name}: {f} false, {m} missed" for name, f, m in zip(ORDER, one.false, one.missed, strict=True)]
            name = f"{kind}_{number}.jpg"
            side_by_side(pictures, titles, font_size=20).save(folder / name, quality=90)
            captions[kind][name] = images[position[one.image_id]].path.name
    return captions


ORDER = ("first", "second")
