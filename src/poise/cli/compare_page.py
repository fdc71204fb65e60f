"""One self-contained HTML page about a comparison of two models."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

from poise.cli.page import figure_of, page_of, pair_of, section
from poise.cli.page_analysis import table
from poise.evaluate import Comparison, percent
from poise.storage import write_text_atomically

LEGEND = "Red: false positives with their scores. Yellow, dashed: missed objects. Gray: true positives."
FIGURES = {"differences.png": "Difference of AP by class", "images.png": "Errors of each image"}


def write_comparison_page(
    folder: Path, comparison: Comparison, captions: Mapping[str, Mapping[str, str]], data: str
) -> Path:
    """Write ``report.html`` next to the figures and pictures of a comparison.

    Args:
        captions: of the pictures ``better_N.jpg`` and ``worse_N.jpg``, by kind and name of the file.
        data: name of data set and split.
    """
    first, second = (html.escape(name) for name in comparison.names)
    one = comparison.interval
    cards = [
        (percent(comparison.ap[0]), "AP of the first"),
        (percent(comparison.ap[1]), "AP of the second"),
        (_signed(one.difference), f"difference, {one.verdict}"),
        (f"{_signed(one.low)} to {_signed(one.high)}", f"{100 * comparison.confidence:g} % interval"),
    ]
    shown = "".join(f"<div class=card><b>{value}</b><span>{html.escape(text)}</span></div>" for value, text in cards)
    rows = [
        (
            c.name,
            percent(c.ap[0]),
            percent(c.ap[1]),
            _signed(c.interval.difference) if c.objects else "no objects",
            f"{_signed(c.interval.low)} to {_signed(c.interval.high)}" if c.objects else "",
            str(c.objects),
        )
        for c in comparison.classes
    ]
    heads = ("class", "AP, first", "AP, second", "difference", "interval", "objects")
    scores = ", ".join(f"{t.threshold:.2f}" for t in comparison.thresholds)
    body = [
        f"<h1>Comparison on {html.escape(data)}</h1>",
        f"<dl><div><dt>first</dt><dd>{first}</dd></div><div><dt>second</dt><dd>{second}</dd></div></dl>",
        f"<div class=cards>{shown}</div>",
        f"<p>{html.escape(comparison.sentence())}. The intervals are percentiles of {comparison.draws} draws of the "
        "images with replacement, the same images for both (paired bootstrap).</p>",
        f"<h2>Classes</h2>{table(heads, rows)}",
        section("Figures", [figure_of(folder / name, text) for name, text in FIGURES.items()]),
        *(
            section(
                f"Images on which the second has {errors} errors",
                [pair_of(folder / name, captions[kind], ("first", "second")) for name in captions[kind]],
                f"{LEGEND} Score thresholds, those of the highest F1: {scores}.",
            )
            for kind, errors in (("better", "fewer"), ("worse", "more"))
        ),
    ]
    path = folder / "report.html"
    write_text_atomically(path, page_of(f"Comparison on {data}", body))
    return path


def _signed(value: float) -> str:
    return "-" if value != value else f"{100 * value:+.1f}"
