"""Panels, colors, legends and files of figures, without a display and without the global state of pyplot."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from poise.draw import class_color
from poise.fonts import font_for, readable_name

PathLike = str | os.PathLike[str]


def panel(size: tuple[float, float]) -> tuple[Figure, Axes]:
    """A figure of ``size`` inches with one panel."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def panels(count: int, size: tuple[float, float] = (5.2, 3.6), columns: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels of ``size`` inches each, in rows."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def class_line_color(label: int) -> tuple[float, float, float]:
    """The color of the class in pictures, darkened for a white background."""
    red, green, blue = (0.85 * value / 255 for value in class_color(label))
    return red, green, blue


def sequential_colors(count: int) -> Any:
    """(count,4) colors of a perceptual sequence, without the lightest ones."""
    return colormaps["viridis"](np.linspace(0, 0.9, count))


def shorten(name: str, limit: int = 24) -> str:
    """The name, cut to ``limit`` characters."""
    return name if len(name) <= limit else name[: limit - 1] + "…"


def class_labels(names: Sequence[str]) -> list[str]:
    """Shortened names; the class number where no font of the system has the letters of the name."""
    return [shorten(readable_name(i, name)) for i, name in enumerate(names)]


def legend_outside(axes: Axes, title: str) -> None:
    axes.legend(title=title, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)


def save(figure: Figure, path: PathLike) -> Path:
    """Write a PNG and create its folder where it is missing."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _set_fonts(figure)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    return path


def _set_fonts(figure: Figure) -> None:
    """Let texts with letters that Matplotlib's own font lacks use the system's font that has them."""
    for text in figure.findobj(Text):
        content = text.get_text()
        font = None if content.isascii() else font_for(12, content)
        if font is not None and isinstance(font.path, str) and Path(font.path).is_file():
            properties = text.get_fontproperties().copy()
            properties.set_file(font.path)
            text.set_fontproperties(properties)
