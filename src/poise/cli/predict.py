"""``poise predict``: write detections as annotated pictures (or videos) and JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from poise.cli.help import CommandHelp
from poise.cli.light_imports import import_without_compiler
from poise.suggestions import plural

if TYPE_CHECKING:
    from PIL import Image

    from poise.api import Detector
    from poise.inference import Result


@dataclass(frozen=True)
class Arguments:
    """Detect objects: poise predict CHECKPOINT SOURCE …

    Writes annotated pictures (a video for a video) and detections.json to a folder.
    """

    checkpoint: Positional[str]
    """A model file (best.pt, last.pt), a run folder (its best weights), an exported file, hf://owner/name, demo, or a
    model's name with --weights."""
    source: Positional[tuple[str, ...]]
    """Images, folders, globs in quotes, video files, or a camera's number such as 0, which records until Ctrl-C
    (videos and cameras need the extra poise[video])."""
    out: Path | None = None
    """The output folder; by default runs/predict, runs/predict-2, …"""
    class_names: tuple[str, ...] = ()
    """Names for the model's classes, in the order of its labels, where it has none or others."""
    weights: str | None = None
    """Weights of a named model: coco, demo, a file, a run or hf://owner/name. coco is the published checkpoint,
    which is fetched; the original's name of another one is accepted, too."""
    score_threshold: float | Literal["best"] = 0.3
    """Detections with a lower score are dropped. best: for each class the threshold of the highest F1 in the validation
    of the run (metrics.json)."""
    nms_threshold: float | None = None
    """IoU from which NMS drops the lower-scored of two boxes of a class; by default the model's own."""
    max_detections: int | None = None
    """Detections per image; by default the model's own."""
    nms_similarity: str | None = None
    """What NMS compares with its threshold instead of the IoU, for tiny objects: nwd, simd, gcd, "nwd(scale=16.0)"."""
    classes: tuple[str, ...] = ()
    """Names of the classes to keep; by default all."""
    show_scores: bool = False
    """Show scores in the pictures."""
    batch_size: int = 8
    """Images (with --tile: tiles) that go through the network at once."""
    tile: int | None = None
    """Cut large images into overlapping tiles of this side in pixels, for small objects."""
    tta: str | None = None
    """Test-time augmentation: factors of the image size, flip, nms or soft_nms, as in 0.75,1,1.5,flip,soft_nms."""
    on_bad_image: Literal["error", "skip"] = "error"
    """Unreadable images and videos that end early: stop, or skip them with a warning."""
    max_pixels: int = 89_478_485
    """Image files with more pixels are refused; raise it for large scenes, best together with --tile."""
    drop_heads: bool = False
    """Remove auxiliary heads, which only training needs."""
    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto takes a GPU where there is one."""
    json: bool = False
    """Print the detections as JSON instead of one line per image."""


HELP = CommandHelp(
    usual=(
        *("out", "weights", "score_threshold", "nms_threshold", "max_detections", "classes", "show_scores"),
        *("tile", "tta", "batch_size", "on_bad_image", "device", "json"),
    ),
    examples=(
        "poise predict runs/atss_r18_fpn photos/ --classes cat dog --score-threshold 0.5",
        "poise predict runs/atss_r18_fpn aerial.tif --tile 640",
        "poise predict vfnet_r50_fpn photo.jpg --weights vfnet_r50_coco.pth",
    ),
)


def run(arguments: Arguments) -> int:
    """Predict, write pictures and JSON, print a summary."""
    import_without_compiler()
    from poise.api import Detector, free_folder
    from poise.storage import write_text_atomically

    if not arguments.source:
        raise ValueError("poise predict needs at least one image, folder, glob or video after the checkpoint")
    detector = Detector(arguments.checkpoint, arguments.device, weights=arguments.weights)
    if arguments.class_names:
        detector.model.set_classes(arguments.class_names, detector.model.category_ids)
    if arguments.drop_heads:
        detector.drop_training_parts()
    folder = arguments.out or free_folder(Path("runs"), "predict")
    folder.mkdir(parents=True, exist_ok=True)
    names = FreeNames(folder)
    records: list[dict[str, Any]] = []
    for source in arguments.source:
        records += _predict(detector, source, names, arguments)
    text = json.dumps(records, indent=1, ensure_ascii=False)
    write_text_atomically(folder / "detections.json", text + "\n")
    if arguments.json:
        print(text)
    else:
        objects = sum(len(record["detections"]) for record in records)
        images = plural(len(records), "image")
        print(f"{plural(objects, 'object')} in {images}; pictures and detections.json in {folder}")
    return 0


class FreeNames:
    """File names of the pictures, so that images of the same name in two folders do not overwrite each other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.taken = folder, {"detections.json"}

    def path(self, name: str) -> Path:
        """Return ``folder/name``, or with a number if the name is taken in this run."""
        wanted, number = Path(name), 1
        while name.casefold() in self.taken:  # names are not case-sensitive on Windows and macOS
            number += 1
            name = f"{wanted.stem}-{number}{wanted.suffix}"
        self.taken.add(name.casefold())
        return self.folder / name


def _predict(detector: Detector, source: str, names: FreeNames, arguments: Arguments) -> list[dict[str, object]]:
    from poise.inference import frame_rate, is_camera, is_video, write_video

    camera = is_camera(source)
    results = detector.predict(
        source
        if camera or is_video(source) or not _is_one_file(source)
        else [source],  # files of a list can be skipped
        stream=True,
        score_threshold=arguments.score_threshold,
        nms_threshold=arguments.nms_threshold,
        max_detections=arguments.max_detections,
        nms_similarity=arguments.nms_similarity,
        classes=arguments.classes or None,
        batch_size=arguments.batch_size,
        tile=arguments.tile,
        tta=arguments.tta,
        on_bad_image=arguments.on_bad_image,
        max_pixels=arguments.max_pixels,
    )
    records: list[dict[str, Any]] = []
    if camera or is_video(source):
        stem = f"camera-{source}" if camera else Path(source).stem
        pictures, target = _pictures_of(results, records, arguments, camera), names.path(f"{stem}.mp4")
        try:
            write_video(pictures, target, 25 if camera else frame_rate(source))
        except ValueError:
            target.unlink(missing_ok=True)  # do not keep an incomplete video
            raise
        return records
    for result in results:
        target = names.path(_picture_name(result))
        result.save(target, show_scores=arguments.show_scores)
        records.append(result.to_dict())
        if not arguments.json:
            print(f"{result.path}: {_summary(result)}")
    return records


def _is_one_file(source: str) -> bool:
    return os.path.exists(source) and not os.path.isdir(source)


def _pictures_of(
    results: Iterator[Result], records: list[dict[str, Any]], arguments: Arguments, camera: bool
) -> Iterator[Image.Image]:
    """Iterate over the annotated frames of a video, and append their detections to ``records``.

    Ctrl-C ends the recording of a camera; what was predicted until then is written.
    """
    try:
        for result in results:
            records.append(result.to_dict())
            if sys.stderr.isatty():
                print(f"\rframe {len(records)}", end="", file=sys.stderr)
            yield result.plot(show_scores=arguments.show_scores)
    except KeyboardInterrupt:
        if not camera:
            raise
        print(f"\nstopped after {plural(len(records), 'frame')}", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)


def _picture_name(result: Result) -> str:
    """Return the name of the image; uncommon formats are converted to PNG."""
    name = result.path or Path("image.png")
    return name.name if name.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp") else f"{name.stem}.png"


def _summary(result: Result) -> str:
    counted = {name: result.names.count(name) for name in dict.fromkeys(result.names)}
    return ", ".join(f"{count} {name}" for name, count in counted.items()) or "no detections"
