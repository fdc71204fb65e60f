"""``poise eval``: COCO or LVIS metrics of a trained model."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from poise.cli.arguments import CommandLineError, DataPaths, data_name, evaluation_images
from poise.cli.help import CommandHelp
from poise.cli.progress import ImageCounter
from poise.suggestions import plural

if TYPE_CHECKING:
    from poise.api import Detector
    from poise.data import ImageSet
    from poise.evaluate import Analysis, Evaluation

PICTURES = 8  # of each kind that --analyze writes


@dataclass(frozen=True)
class Arguments:
    """Evaluate a trained model on a data set: poise eval CHECKPOINT --data PATH."""

    checkpoint: Positional[str]
    """A model file (best.pt, last.pt), a run folder (its best.pt is used), an exported file, or a model name with
    --weights."""
    data: DataPaths
    """The data set: a folder or file in COCO, YOLO, Pascal VOC or LVIS layout; given several times, they are joined."""
    class_map: dict[str, str | None] = field(default_factory=dict)
    """Other names of classes: car vehicle van vehicle person null. null drops a class, ignore makes its objects regions
    to ignore. By default as in the training of the model."""
    class_names: tuple[str, ...] = ()
    """Names for the model's classes, in the order of its labels, where it has none or others."""
    weights: str | None = None
    """Weights of a named model: coco, demo, a file, a run or hf://owner/name. coco is the published checkpoint,
    which is fetched; the original's name of another one is accepted, too."""
    split: str | None = None
    """Split of the data set; by default val, else test, else the images that the training held out, else the only
    split."""
    batch_size: int = 8
    """Images per forward pass; the metrics do not depend on it."""
    workers: int = 0
    """Number of processes that read images."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto takes a GPU where there is one."""
    on_bad_data: Literal["error", "skip"] = "error"
    """Faulty records (poise check lists them): stop, or leave them out and report their number."""
    follow_links: bool = False
    """Read what links in the data folder lead to; otherwise such links are refused."""
    json: bool = False
    """Print the metrics as JSON, in [0,1]; tables are in percent."""
    analyze: bool = False
    """Analyze the errors: types of errors, score thresholds, calibration, slices, worst images, likely label errors.
    Writes analysis.json, figures, pictures and report.html to --out."""
    out: Path | None = None
    """The folder of --analyze; by default runs/analysis, runs/analysis-2, …"""
    save_json: Path | None = None
    """Write the detections as COCO results, with the category ids of the data set."""
    proposals: Path | None = None
    """File of proposals (COCO results), for models without a proposal stage (fast_rcnn_*)."""
    proposals_limit: int = 2000
    """Number of proposals per image, those with the highest scores."""
    tta: str | None = None
    """Test-time augmentation: factors of the image size, flip, nms or soft_nms, as 0.75,1,1.5,flip,soft_nms."""
    max_detections: int | None = None
    """Detections per image of the model, and, if more than 100, per image and class in AP: a table AP@N is added to the
    twelve metrics, which always count 100."""
    metrics: tuple[str, ...] = ()
    """Metrics of plug-ins that are computed as well (docs/extending.md)."""
    head: str = ""
    """Evaluate an auxiliary head of a Co-DETR (atss, faster_rcnn, …) instead of its decoder."""
    save_proposals: Path | None = None
    """Write the proposals of a two-stage model (of others the detections) to this file, without evaluation."""


HELP = CommandHelp(
    usual=(
        "data",
        "split",
        "weights",
        "class_map",
        "batch_size",
        "workers",
        "device",
        "on_bad_data",
        "tta",
        "save_json",
        "json",
    ),
    examples=(
        "poise eval runs/atss_r18_fpn --data photos",
        "poise eval runs/atss_r18_fpn --data photos --split test --tta 0.75,1,1.5,flip",
        "poise eval vfnet_r50_fpn --data coco --weights vfnet_r50_coco.pth --save-json found.json",
    ),
)


def run(arguments: Arguments) -> int:
    """Evaluate and print the metrics."""
    from poise.api import Detector
    from poise.evaluate import write_results

    if arguments.out is not None and not arguments.analyze:
        raise CommandLineError("--out is the folder of --analyze; give --analyze as well")
    detector = Detector(arguments.checkpoint, arguments.device, weights=arguments.weights)
    if arguments.class_names:
        detector.model.set_classes(arguments.class_names, detector.model.category_ids)
    images, note = evaluation_images(arguments, detector.run_folder, detector.model.class_map)
    if note:
        print(f"note: {note}", file=sys.stderr)
    if arguments.save_proposals is not None:
        return _save_proposals(detector, arguments, images)
    counter = ImageCounter(len(images), False if arguments.json else None)
    result = detector.val(
        images,
        batch_size=arguments.batch_size,
        workers=arguments.workers,
        on_bad_data=arguments.on_bad_data,
        proposals=arguments.proposals,
        proposals_limit=arguments.proposals_limit,
        head=arguments.head,
        tta=arguments.tta,
        max_detections=arguments.max_detections,
        metrics=arguments.metrics,
        progress=counter,
    )
    counter.close()
    if arguments.save_json is not None:
        write_results(result.detections, arguments.save_json, result.truth)
    analysis, folder = _analyze(result, arguments, images) if arguments.analyze else (None, None)
    if arguments.json:
        numbers = {**result.metrics.to_dict(), "seconds_per_image": result.seconds_per_image}
        numbers |= {} if analysis is None else {"analysis": analysis.to_dict()}
        print(json.dumps(numbers, indent=1, ensure_ascii=False))
        return 0
    print(result.metrics.table())
    print(f"{plural(result.images, 'image')}, {1000 * result.seconds_per_image:.1f} ms per image on {detector.device}")
    if analysis is not None:
        print(f"\n{analysis.table()}\n{folder}: report.html, analysis.json, figures and pictures")
    if arguments.save_json is not None:
        print(f"detections: {arguments.save_json}")
    return 0


def _analyze(result: Evaluation, arguments: Arguments, images: ImageSet) -> tuple[Analysis, Path]:
    """Write the analysis and its page."""
    from poise.api import free_folder
    from poise.cli.page import write_page
    from poise.engine.pictures import write_evaluation

    folder = arguments.out or free_folder(Path("runs"), "analysis")
    folder.mkdir(parents=True, exist_ok=True)
    analysis = write_evaluation(folder, result, images, PICTURES)
    write_page(folder, f"{Path(arguments.checkpoint).name} on {data_name(arguments.data)}, {images.name}")
    return analysis, folder


def _save_proposals(detector: Detector, arguments: Arguments, images: ImageSet) -> int:
    """Write the proposals and print their recall."""
    from poise.evaluate import write_proposals

    if arguments.save_json is not None:
        raise ValueError("--save-proposals writes proposals instead of detections; give --save-json in a second run")
    images, loader = detector.batches(
        images,
        batch_size=arguments.batch_size,
        workers=arguments.workers,
        on_bad_data=arguments.on_bad_data,
        proposals=arguments.proposals,
        proposals_limit=arguments.proposals_limit,
    )
    path = arguments.save_proposals
    assert path is not None
    coverage = write_proposals(detector.model, loader, images.to_coco(), path, device=detector.device)
    recall = {"recall_50": coverage.recall(0.5), "recall_50_95": coverage.recall()}
    if arguments.json:
        counts = {"images": coverage.images, "proposals": coverage.proposals, "objects": coverage.objects}
        print(json.dumps({**counts, **recall}, indent=1))
        return 0
    print(f"{plural(coverage.proposals, 'proposal')} of {plural(coverage.images, 'image')}: {path}")
    print(f"recall of {plural(coverage.objects, 'object')}: {100 * recall['recall_50']:.1f} at IoU 0.50", end=", ")
    print(f"{100 * recall['recall_50_95']:.1f} averaged over IoU 0.50 to 0.95")
    return 0
