"""Figures 1 and 5 of DW's article (Li et al. 2022) for any model: four anchors, and maps of their weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from poise.lab.annotated_image import AnnotatedImage
from poise.lab.measurement_figures import new_figure, save_figure
from poise.lab.weightings import ObjectWeights

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LETTERS = "ABCD"
COLORS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd")  # of the four anchors
POSITIVE, NEGATIVE = "#59a14f", "#f28e2b"
MARGIN = 0.35  # of the sides of the object, shown around it


def draw_anchors(
    image: AnnotatedImage,
    box: np.ndarray,
    weights: ObjectWeights,
    anchors: Sequence[int],
    *,
    scale: np.ndarray,
    path: str | os.PathLike[str],
    title: str,
) -> Path:
    """Draw the predicted boxes of four anchors, and their weights under each scheme.

    Args:
        box: (4,) of the object, in pixels of the image.
        anchors: their indices.
        scale: (4,) factor from boxes of the network's input to pixels of the image.
    """
    from matplotlib.patches import Rectangle

    figure = new_figure(12.6, 4.0)
    grid = figure.subplots(1, 1 + len(weights.schemes), width_ratios=[1.25, *[1] * len(weights.schemes)])
    _draw_object(grid[0], image, box)
    for color, n in zip(COLORS, anchors, strict=True):
        x1, y1, x2, y2 = (weights.boxes[n].numpy() * scale).tolist()
        grid[0].add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, edgecolor=color, linewidth=1.6, fill=False))
    _mark(grid[0], weights, anchors, scale)
    grid[0].set_title("predicted boxes; letters at the centers of the anchors", fontsize=8)
    labels = [
        f"{letter}\ns {weights.score[n]:.2f}\nIoU {weights.iou[n]:.2f}"
        for letter, n in zip(LETTERS, anchors, strict=True)
    ]
    for axes, (name, scheme) in zip(grid[1:], weights.schemes.items(), strict=True):
        for offset, color, values in ((-0.2, POSITIVE, scheme.positive), (0.2, NEGATIVE, scheme.negative)):
            heights = values[list(anchors)].numpy()
            kind = "positive weight" if offset < 0 else "negative weight"
            bars = axes.bar(np.arange(4) + offset, heights, 0.38, color=color, label=kind)
            axes.bar_label(bars, [f"{value:.2g}" if value >= 5e-4 else "0" for value in heights], fontsize=7, padding=1)
        axes.set_xticks(np.arange(4), labels, fontsize=8)
        for tick, color in zip(axes.get_xticklabels(), COLORS, strict=True):
            tick.set_color(color)
        axes.margins(y=0.15)
        axes.set_ylim(bottom=0)
        axes.set_title(name, fontsize=9)
        axes.tick_params(axis="y", labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    handles, names = grid[1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return save_figure(figure, path, title)


def draw_weight_maps(
    image: AnnotatedImage,
    box: np.ndarray,
    weights: ObjectWeights,
    anchors: Sequence[int],
    *,
    scale: np.ndarray,
    path: str | os.PathLike[str],
    title: str,
) -> Path:
    """Draw the object, score and IoU, and below the positive and the negative weight of each scheme.

    The maps show the level with the largest positive weight of DW. Arguments as of ``draw_anchors``.
    """
    level = _heaviest_level(weights)
    columns = len(weights.schemes)
    figure = new_figure(3.2 * columns, 9.0)
    grid = figure.subplots(3, columns)
    _draw_object(grid[0, 0], image, box)
    stride = float(weights.strides[level][0])
    grid[0, 0].set_title(f"object; maps of the level of stride {stride:g}", fontsize=8)
    maps = [(grid[0, 1], "score of its class", weights.score, "Blues"), (grid[0, 2], "IoU", weights.iou, "Blues")]
    for k, (name, scheme) in enumerate(weights.schemes.items()):
        maps.append((grid[1, k], f"{name}: positive weight", scheme.positive, "Greens"))
        maps.append((grid[2, k], f"{name}: negative weight", scheme.negative, "Oranges"))
    for axes, name, values, colors in maps:
        _draw_map(axes, weights.cells[level].numpy() * scale, values[level].numpy(), colors)
        axes.set_title(f"{name}, 0 to {float(values[level].max()):.3g}", fontsize=8)
        _frame(axes, box, "0.35")
        shown = [n for n in anchors if bool(level[n])]
        _mark(axes, weights, shown, scale, [LETTERS[list(anchors).index(n)] for n in shown])
    for axes in grid.flat:
        _limit(axes, box, image)
        axes.set_axis_off()
    return save_figure(figure, path, title)


def _heaviest_level(weights: ObjectWeights) -> Tensor:
    """Which priors are on the level with the largest sum of DW's positive weights, (N,) bool."""
    strides = weights.strides.unique()
    sums = torch.stack([weights.schemes["DW"].positive[weights.strides == stride].sum() for stride in strides])
    return weights.strides.eq(strides[sums.argmax()])


def _draw_map(axes: Axes, cells: np.ndarray, values: np.ndarray, colors: str) -> None:
    """Draw the largest value of the priors of each cell, white for 0; cells have one size."""
    xs, column = np.unique(np.round(cells[:, 0], 3), return_inverse=True)
    ys, row = np.unique(np.round(cells[:, 1], 3), return_inverse=True)
    plane = np.zeros((len(ys), len(xs)))
    np.maximum.at(plane, (row, column), values)
    extent = (cells[:, 0].min(), cells[:, 2].max(), cells[:, 3].max(), cells[:, 1].min())
    axes.imshow(plane, cmap=colors, extent=extent, vmin=0, vmax=max(1.25 * float(plane.max()), 1e-12))


def _draw_object(axes: Axes, image: AnnotatedImage, box: np.ndarray) -> None:
    height, width = image.pixels.shape[1:]
    axes.imshow(image.pixels.permute(1, 2, 0).numpy(), extent=(0, width, height, 0))
    _frame(axes, box, "white")
    _limit(axes, box, image)
    axes.set_axis_off()


def _frame(axes: Axes, box: np.ndarray, color: str) -> None:
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = box.tolist()
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, edgecolor=color, linewidth=1.4, linestyle="--", fill=False))


def _mark(
    axes: Axes, weights: ObjectWeights, anchors: Sequence[int], scale: np.ndarray, letters: Sequence[str] = LETTERS
) -> None:
    """Write the letters of anchors at their centers."""
    for letter, n in zip(letters, anchors, strict=True):
        x1, y1, x2, y2 = (weights.cells[n].numpy() * scale).tolist()
        ground = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": COLORS[LETTERS.index(letter)]}
        x, y, color = (x1 + x2) / 2, (y1 + y2) / 2, COLORS[LETTERS.index(letter)]
        axes.text(x, y, letter, clip_on=True, fontsize=7, ha="center", va="center", color=color, bbox=ground)


def _limit(axes: Axes, box: np.ndarray, image: AnnotatedImage) -> None:
    """Show the object and its surroundings."""
    height, width = image.pixels.shape[1:]
    dx, dy = MARGIN * (box[2] - box[0]), MARGIN * (box[3] - box[1])
    axes.set(xlim=(max(box[0] - dx, 0), min(box[2] + dx, width)), ylim=(min(box[3] + dy, height), max(box[1] - dy, 0)))
