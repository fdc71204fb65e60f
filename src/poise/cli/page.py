"""One self-contained HTML page about a run folder: metrics of ``best.pt``, figures, pictures, recipe."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from poise.cli.page_analysis import FIGURES as ANALYSIS_FIGURES
from poise.cli.page_analysis import advice, analysis_tables
from poise.evaluate.history import read_history
from poise.evaluate.metrics import percent
from poise.storage import write_text_atomically
from poise.suggestions import plural

HEADLINES = {
    "ap": "AP, IoU 0.50:0.95",
    "ap50": "AP at IoU 0.50",
    "ap75": "AP at IoU 0.75",
    "ar100": "AR, 100 detections per image",
    "ar300": "AR, 300 detections per image",
}
CURVES = {"curves.png": "Losses and metrics of every epoch"}
FIGURES = {
    "precision_recall.png": "Precision over recall of each class, IoU 0.50",
    "precision_recall_by_iou.png": "Precision over recall by IoU",
    "confidence.png": "Precision, recall and F1 over the score threshold",
    "scores.png": "Scores of true and false positives",
    "confusion_normalized.png": "Confusion matrix, percent of the true class",
    "confusion.png": "Confusion matrix, counts",
    "labels.png": "Objects per class, centers and sizes of their boxes",
}
STYLE = """
:root { color-scheme: light dark; --ink: #17212e; --quiet: #5b6878; --line: #dde3ea; --paper: #fff; --card: #f6f8fa }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8edf3; --quiet: #9aa7b6; --line: #303a46; --paper: #12171d; --card: #1a212a }
}
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 1200px; margin: 1.5rem auto; padding: 0 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; margin: 0 }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem }
p, figcaption, dt, .card span { color: var(--quiet) }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 230px), 1fr)); gap: .5rem 1.2rem }
dt { font-size: .85rem }
dd { margin: 0 }
.cards { display: flex; flex-wrap: wrap; gap: .8rem }
.card, pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .8rem 1.2rem }
.card { flex: 1 1 150px }
.card b { display: block; font-size: 1.6rem }
.figures { display: flex; flex-wrap: wrap; gap: 1rem }
.columns { display: block; columns: 460px 2; column-gap: 1rem }
.columns figure { break-inside: avoid; padding-bottom: 1rem }
figure { margin: 0; flex: 1 1 min(100%, 460px); min-width: 0 }
figure.wide { flex-basis: 100% }
figcaption { font-size: .9rem; padding-top: .2rem }
figure a { display: block; color: inherit }
img { display: block; width: 100%; border: 1px solid var(--line); border-radius: 8px; background: #fff }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 4px }
.half { background-size: 200% 100%; border-radius: 8px }
.half + .half { background-position: 100% 0 }
.close { display: none !important }
figure:target { position: fixed; inset: 0; z-index: 9; overflow: auto; background: var(--paper); padding: 1rem }
figure:target img { width: auto; max-width: none }
figure:target .pair { grid-template-columns: 1fr }
figure:target .half { width: var(--width) }
figure:target .close { display: block !important; position: fixed; top: .5rem; right: .8rem; padding: 0 .6rem;
  font-size: 1.6rem; text-decoration: none; background: var(--card); border: 1px solid var(--line); border-radius: 8px }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { white-space: nowrap; padding: .25rem .9rem; border-bottom: 1px solid var(--line); text-align: right }
td:first-child, th:first-child { text-align: left; white-space: normal; overflow-wrap: normal; min-width: 7rem }
pre { overflow: auto; overflow-wrap: normal }
@media (max-width: 560px) {
  table { font-size: .85rem }
  td, th { padding: .2rem .35rem }
  td:first-child, th:first-child { padding-left: 0 }
}
"""


def write_page(folder: Path, title: str = "") -> Path:
    """Write ``report.html`` into a run folder; what the folder does not contain is left out.

    Metrics, tables and figures are those of ``best.pt`` (``metrics.json``), whose epoch the page names.

    Args:
        folder: of a run, finished or not.
        title: the heading; by default the folder's name.
    """
    title = title or folder.name
    metrics, captions = _read(folder / "metrics.json"), _read(folder / "captions.json")
    analysis = _read(folder / "analysis.json")
    body = [
        f"<h1>{html.escape(title)}</h1>",
        _header(folder, metrics),
        _cards(metrics),
        _classes(metrics),
        section(
            "What to do next",
            [figure_of(folder / name, text) for name, text in ANALYSIS_FIGURES.items()],
            advice(analysis),
        ),
        analysis_tables(analysis),
        section(
            "Likely label errors",
            [figure_of(path, captions.get(path.name, path.name)) for path in _numbered(folder, "label")],
            "Red: confident detections of objects that are not annotated, or annotated as another class. "
            "Yellow, dashed: the annotation of the other class.",
            "figures columns",
        ),
        section("Truth and detections", [pair_of(path, captions) for path in _numbered(folder, "val")]),
        section(
            "Images with most errors",
            [figure_of(path, captions.get(path.name, path.name)) for path in _numbered(folder, "errors")],
            "Red: false positives with their scores. Yellow, dashed: missed objects. Gray: true positives.",
            "figures columns",
        ),
        section("Training", [figure_of(folder / name, text, wide=True) for name, text in CURVES.items()]),
        section(f"Figures of {_best(metrics)}", [figure_of(folder / name, text) for name, text in FIGURES.items()]),
        section(
            "Training batches after augmentation",
            [figure_of(path, f"step {i + 1}") for i, path in enumerate(_numbered(folder, "train_batch"))],
        ),
        _recipe(folder / "recipe.yaml"),
    ]
    write_text_atomically(folder / "report.html", page_of(title, body))
    return folder / "report.html"


def page_of(title: str, body: Sequence[str]) -> str:
    """The text of a page in the style of the reports, light and dark."""
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{html.escape(title)}</title>"
    return f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>{''.join(body)}</body></html>"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _numbered(folder: Path, stem: str) -> list[Path]:
    return sorted(folder.glob(f"{stem}_*.jpg"), key=lambda path: int(path.stem.rpartition("_")[2]))


def _best(metrics: Mapping[str, Any]) -> str:
    return f"best.pt, epoch {metrics['epoch']}" if "epoch" in metrics else metrics.get("checkpoint", "best.pt")


def _header(folder: Path, metrics: Mapping[str, Any]) -> str:
    """Model, data, machine, date, epochs and minutes."""
    run, results = _read(folder / "run.json"), folder / "results.csv"
    history = read_history(results) if results.is_file() and results.stat().st_size else {}
    minutes = sum(value for value in history.get("seconds", ()) if value == value) / 60
    data = [f"{run[part]['images']} {part} images" for part in ("train", "val") if run.get(part)]
    entries = {
        "model": run.get("model"),
        "data": ", ".join([run["data"], *data]) if run else None,
        "started": run.get("started"),
        "training": f"{plural(len(history['epoch']), 'epoch')}, {minutes:.1f} minutes"
        if history.get("epoch")
        else None,
        "machine": run.get("machine"),
        "metrics and figures": f"{_best(metrics)}, split {metrics.get('split', 'val')}" if metrics else None,
    }
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{html.escape(str(value))}</dd></div>" for name, value in entries.items() if value
    )
    return f"<dl>{cells}</dl>"


def _cards(metrics: Mapping[str, Any]) -> str:
    shown = [(text, percent(metrics[name])) for name, text in HEADLINES.items() if name in metrics]
    best = metrics.get("best_f1")
    if best:
        shown.append((f"F1 at IoU 0.50, highest at score {best['threshold']:.2f}", percent(best["f1"])))
    cards = "".join(f"<div class=card><b>{value}</b><span>{html.escape(text)}</span></div>" for text, value in shown)
    return f"<div class=cards>{cards}</div>" if cards else ""


def _classes(metrics: Mapping[str, Any]) -> str:
    classes = metrics.get("classes", ())
    if not classes:
        return ""
    rows = "".join(
        f"<tr><td>{html.escape(str(one['name']))}<td>{percent(one['ap'])}<td>{percent(one['ap50'])}"
        f"<td>{one['objects']}<td>{one.get('detections', '-')}"
        for one in classes
    )
    head = "<tr><th>class<th>AP<th>AP50<th>objects<th>detections"
    return f"<h2>Classes, {_best(metrics)}</h2><div class=scroll><table>{head}{rows}</table></div>"


def section(heading: str, figures: Sequence[str], text: str = "", layout: str = "figures") -> str:
    """A heading, a note and figures; empty without figures."""
    content = "".join(figures)
    note = f"<p>{text}</p>" if text else ""
    return f"<h2>{heading}</h2>{note}<div class='{layout}'>{content}</div>" if content else ""


def figure_of(path: Path, caption: str, wide: bool = False) -> str:
    """The picture inside the page, so that the page is one file; a click opens it in full size."""
    if not path.is_file():
        return ""
    text, name = html.escape(caption, quote=True), path.stem
    style = " class=wide" if wide else ""
    return (
        f"<figure id='{name}'{style}><a href='#{name}'><img alt='{text}' src='{_data(path)}'></a>"
        f"<a class=close href='#_' title=close>×</a><figcaption>{text}</figcaption></figure>"
    )


def pair_of(path: Path, captions: Mapping[str, str], parts: tuple[str, str] = ("truth", "detections")) -> str:
    """A picture of two halves that stand one above the other on a narrow screen."""
    with Image.open(path) as picture:
        width, height = picture.size
    text, name = html.escape(captions.get(path.name, path.name), quote=True), path.stem
    style = f"background-image: url({_data(path)}); aspect-ratio: {width} / {2 * height}; --width: {width // 2}px"
    styles = f"<style>#{name} .half {{ {style} }}</style>"  # once for both halves
    halves = "".join(f"<div class=half role=img aria-label='{part} of {text}'></div>" for part in parts)
    return (
        f"{styles}<figure id='{name}' class=wide><a class=pair href='#{name}'>{halves}</a>"
        f"<a class=close href='#_' title=close>×</a><figcaption>{text}</figcaption></figure>"
    )


def _data(path: Path) -> str:
    kind = "png" if path.suffix == ".png" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _recipe(path: Path) -> str:
    if not path.is_file():
        return ""
    return f"<h2>Recipe</h2><pre>{html.escape(path.read_text(encoding='utf-8'))}</pre>"
