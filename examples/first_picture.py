"""Draw the picture of the README: detections, and the positive weight of every prior under two assigners.

poise demo --out runs/demo
python examples/first_picture.py runs/demo runs/demo/data docs/images/first_picture.png --image 12
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import poise
from poise.data import open_data
from poise.lab import ImageView, explain
from poise.models.assigners import swap_assigner

COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#00a5b5", "#d4a900", "#f032e6", "#8a5a2b", "#5a6b7b")
SCORE = 0.3  # least score of a detection that is drawn
LARGEST = 110.0  # area in square points of the disc of an object's prior with the largest weight


def weights_of(model: Any, image: torch.Tensor, target: dict[str, torch.Tensor], assigner: str) -> ImageView:
    """Return the priors of the image with the weights of an assigner, on the model's own predictions."""
    swap_assigner(model.network, assigner, model.name)
    return explain(model, [image], [target]).stages["dense"].image_view(0)


def draw_boxes(axes: Any, boxes: np.ndarray, texts: list[str], colors: list[str]) -> None:
    """Draw boxes with a caption above each, inside of the image."""
    for (left, top, right, bottom), text, color in zip(boxes, texts, colors, strict=True):
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, lw=2, ec=color))
        style = {"facecolor": color, "edgecolor": "none", "pad": 1.2}
        axes.text(left, max(top, 12), text, color="white", fontsize=9, va="bottom", bbox=style)


def draw_weights(axes: Any, view: ImageView, scale: float) -> None:
    """Draw every prior of the finest level as a dot, and those with a positive weight as discs of that area."""
    centers = scale * (view.priors[:, :2] + view.priors[:, 2:]).numpy() / 2
    axes.scatter(*centers[: int(len(centers) * 0.75)].T, s=1.2, c="white", alpha=0.35, lw=0)
    for number in view.object_indices:
        one, color = view.object_view(number), COLORS[number % len(COLORS)]
        left, top, right, bottom = scale * view.objects[number].numpy()
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, lw=1.4, ec=color))
        kept = one.positive > 0
        sizes = LARGEST * (one.positive[kept] / one.positive.max().clamp(min=1e-12)).numpy()
        axes.scatter(*centers[kept.numpy()].T, s=sizes, c=color, alpha=0.85, ec="white", lw=0.6)


def draw(source: str, folder: Path, index: int, path: Path, assigners: tuple[str, str]) -> None:
    """Draw three panels for image ``index`` of the validation split of a data set."""
    detector = poise.Detector(source, "cpu")
    model = detector.model
    data = open_data(folder, "val")
    record, pixels = data[index], data.read(index)
    found = detector.predict(record.path, score_threshold=SCORE)[0]
    keep = ~(record.crowd | record.ignore)
    target = {"boxes": torch.from_numpy(record.boxes[keep]), "labels": torch.from_numpy(record.labels[keep])}
    height, width = pixels.shape[1:]
    prepared = model.preprocess.target_size(height, width)
    image, dim = pixels.permute(1, 2, 0).numpy(), 0.6
    gray = np.repeat(image.mean(2, keepdims=True) * dim, 3, 2).astype(np.uint8)

    figure = Figure(figsize=(12, 12 / 3 * height / width + 0.42), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    boxes = found.boxes.xyxy.numpy()
    captions = [f"{name} {score:.2f}" for name, score in zip(found.names, found.scores.tolist(), strict=True)]
    overlap = poise.boxes.iou(found.boxes.xyxy[:, None], target["boxes"]) if len(boxes) else torch.zeros(0, 1)
    colors = [COLORS[int(number) % len(COLORS)] for number in overlap.argmax(1)]
    panels[0].imshow(image)
    draw_boxes(panels[0], boxes, captions, colors)
    panels[0].set_title("detections", fontsize=12)
    for axes, assigner in zip(panels[1:], assigners, strict=True):
        view = weights_of(model, pixels, target, assigner)
        axes.imshow(gray)
        draw_weights(axes, view, width / prepared[1])
        axes.set_title(f"positive weights of the priors: {assigner}", fontsize=12)
    for axes in panels:
        axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    figure.savefig(path, dpi=100)


def main() -> None:
    """Parse the arguments and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="run folder or model file of a dense detector")
    parser.add_argument("data", type=Path, help="data set")
    parser.add_argument("out", type=Path, help="the picture")
    parser.add_argument("--image", type=int, default=0, help="number of the validation image")
    parser.add_argument("--assigners", nargs=2, default=("atss", "dual_weighting"), help="two assigners")
    arguments = parser.parse_args()
    draw(arguments.model, arguments.data, arguments.image, arguments.out, tuple(arguments.assigners))


if __name__ == "__main__":
    main()
