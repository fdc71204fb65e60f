"""Pictures of the ground truth and the detections of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from poise.draw import draw_boxes, side_by_side


def draw_comparison(
    image: Tensor | Image.Image,
    truth: Sequence[Mapping[str, Any]],
    detections: Sequence[Mapping[str, Any]],
    categories: Sequence[Mapping[str, Any]],
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
    shown = [one for one in detections if one["score"] >= score_threshold]
    regions = [bool(one.get("iscrowd", 0) or one.get("ignore", 0)) for one in truth]
    left = draw_boxes(image, _corners(truth), [position[a["category_id"]] for a in truth], names=names, dashed=regions)
    labels = [position[one["category_id"]] for one in shown]
    right = draw_boxes(image, _corners(shown), labels, [one["score"] for one in shown], names)
    titles = (f"truth ({len(truth)})", f"detections with score ≥ {score_threshold:.2f} ({len(shown)})")
    return side_by_side((left, right), titles)


def _corners(records: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    return [[x, y, x + width, y + height] for x, y, width, height in (record["bbox"] for record in records)]
