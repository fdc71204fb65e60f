"""Pictures of the ground truth, the detections and the errors on an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image
from torch import Tensor

from poise.draw import Color, default_line_width, draw_boxes, side_by_side, to_picture
from poise.storage.coco import CocoAnnotation, CocoCategory, CocoDetection

SIDE = 800  # pixels of the longer side of a drawn image; boxes and text are drawn at this size
FONT_SIZE = 20
GRAY: Color = (170, 178, 188)
RED: Color = (255, 56, 56)
YELLOW: Color = (255, 214, 0)


def draw_comparison(
    image: Tensor | Image.Image,
    truth: Sequence[CocoAnnotation],
    detections: Sequence[CocoDetection],
    categories: Sequence[CocoCategory],
    *,
    score_threshold: float = 0.3,
) -> Image.Image:
    """Draw the image twice: with its annotations (crowd and ignored regions dashed) and with its detections.

    Args:
        image: (3,H,W) tensor or picture in original pixels.
        truth: COCO annotations of this image.
        detections: COCO results of this image.
        categories: COCO categories; a class has the color of its position.
    """
    position = {record["id"]: k for k, record in enumerate(categories)}
    names = [str(record.get("name", record["id"])) for record in categories]
    picture, scale = fit(image)
    shown = [one for one in detections if one["score"] >= score_threshold]
    regions = [bool(one.get("iscrowd", 0) or one.get("ignore", 0)) for one in truth]
    labels = [position[one["category_id"]] for one in truth]
    left = draw_boxes(picture, _corners(truth, scale), labels, names=names, dashed=regions, font_size=FONT_SIZE)
    labels, scores = [position[one["category_id"]] for one in shown], [one["score"] for one in shown]
    right = draw_boxes(picture, _corners(shown, scale), labels, scores, names=names, font_size=FONT_SIZE)
    titles = (f"truth ({len(truth)})", f"detections with score ≥ {score_threshold:.2f} ({len(shown)})")
    return side_by_side((left, right), titles, font_size=FONT_SIZE)


def draw_errors(
    image: Tensor | Image.Image,
    true_positives: Sequence[CocoDetection],
    false_positives: Sequence[CocoDetection],
    missed: Sequence[CocoAnnotation],
    *,
    names: Mapping[int, str],
) -> Image.Image:
    """Draw false positives in red with their scores, missed objects in yellow and dashed, the rest thin and gray.

    Args:
        image: (3,H,W) tensor or picture in original pixels.
        true_positives, false_positives: COCO results of this image.
        missed: COCO annotations of this image.
        names: class names by category id.
    """
    picture, scale = fit(image)
    width = default_line_width(picture.size)
    scored = [[one["score"] for one in records] or None for records in (true_positives, false_positives)]
    drawn: list[tuple[Sequence[CocoDetection | CocoAnnotation], list[float] | None, Color, int, bool]] = [
        (true_positives, scored[0], GRAY, max(1, width // 2), False),
        (missed, None, YELLOW, width + 1, True),
        (false_positives, scored[1], RED, width + 1, True),
    ]
    for records, scores, color, line, captions in drawn:
        labels, texts = list(range(len(records))), [names[one["category_id"]] for one in records]
        picture = draw_boxes(
            picture,
            _corners(records, scale),
            labels,
            scores,
            names=texts,
            show_labels=captions,
            show_scores=captions,
            colors=[color],
            line_width=line,
            font_size=FONT_SIZE,
            dashed=[records is missed] * len(records),
        )
    return picture


def fit(image: Tensor | Image.Image, side: int = SIDE) -> tuple[Image.Image, float]:
    """The image scaled to ``side`` pixels on its longer side, and the factor; boxes and text are drawn afterward."""
    picture = to_picture(image)
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC), scale


def _corners(records: Sequence[CocoAnnotation | CocoDetection], scale: float) -> list[list[float]]:
    boxes = (record["bbox"] for record in records)
    return [[scale * x, scale * y, scale * (x + width), scale * (y + height)] for x, y, width, height in boxes]
