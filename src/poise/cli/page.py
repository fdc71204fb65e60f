"""Self-contained HTML page about a run folder: metrics, curves, pictures and recipe."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from poise.evaluate.history import read_history
from poise.storage import write_text_atomically

HEADLINES = {"ap": "mAP 0.50:0.95", "ap50": "AP at IoU 0.50", "ap75": "AP at IoU 0.75", "ar100": "AR, 100 an image"}
FIGURES = {
    "curves.png": "Losses and metrics",
    "precision_recall.png": "Precision and recall of each class, IoU 0.50",
    "precision_recall_by_iou.png": "Precision and recall by IoU",
    "confusion.png": "Confusion matrix",
    "scores.png": "Scores of hits and misses",
}
STYLE = """
:root { color-scheme: light dark; --ink: #17212e; --quiet: #5b6878; --line: #dde3ea; --paper: #fff; --card: #f6f8fa }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8edf3; --quiet: #9aa7b6; --line: #303a46; --paper: #12171d; --card: #1a212a }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 1080px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.7rem; margin: 0 }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem }
p, figcaption, .card span { color: var(--quiet) }
.cards { display: flex; flex-wrap: wrap; gap: .8rem }
.card, pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .8rem 1.2rem }
.card b { display: block; font-size: 1.6rem }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 1rem }
figure { margin: 0 }
figcaption { font-size: .85rem }
img { max-width: 100%; border: 1px solid var(--line); border-radius: 8px; background: #fff }
table { border-collapse: collapse }
td, th { padding: .25rem .9rem; border-bottom: 1px solid var(--line); text-align: right }
td:first-child, th:first-child { text-align: left }
pre { overflow: auto }
"""


def write_page(folder: Path, title: str = "", metrics: dict[str, Any] | None = None) -> Path:
    """Write ``report.html`` into a run folder; parts that the folder does not have are left out.

    Args:
        folder: of a run, finished or not.
        title: the heading; by default the folder's name.
        metrics: of a final evaluation (``Metrics.to_dict()``), shown with its classes; by default the best epoch's row.
    """
    title = title or folder.name
    body = [
        f"<h1>{html.escape(title)}</h1><p>A training run of poise.</p>",
        _cards(metrics or _best_row(folder / "results.csv")),
        _section("Detections and ground truth", _pictures(sorted(folder.glob("val_*.jpg")), "validation image")),
        _section("Curves", "".join(_figure(folder / name, text) for name, text in FIGURES.items())),
        _classes((metrics or {}).get("classes", ())),
        _section("Training images", _figure(folder / "train_batch.jpg", "the first batch, after augmentation")),
        _recipe(folder / "recipe.yaml"),
    ]
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{html.escape(title)}</title>"
    page = f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>{''.join(body)}</body></html>"
    write_text_atomically(folder / "report.html", page)
    return folder / "report.html"


def _best_row(results: Path) -> dict[str, float]:
    """Metrics of the epoch with the best AP."""
    if not results.is_file() or not results.stat().st_size:
        return {}
    columns = {name.removeprefix("val/"): values for name, values in read_history(results).items()}
    scores = [value if value == value else -1.0 for value in columns.get("ap", ())]
    if not scores:
        return {}
    best = scores.index(max(scores))
    return {name: values[best] for name, values in columns.items()}


def _cards(numbers: dict[str, Any]) -> str:
    shown = [(text, numbers[name]) for name, text in HEADLINES.items() if _is_number(numbers.get(name))]
    cards = "".join(
        f"<div class=card><b>{value:.3f}</b><span>{html.escape(text)}</span></div>" for text, value in shown
    )
    return f"<div class=cards>{cards}</div>"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and value == value


def _classes(classes: Sequence[dict[str, Any]]) -> str:
    if not classes:
        return ""
    rows = "".join(
        f"<tr><td>{html.escape(str(one['name']))}<td>{_show(one['ap'])}<td>{_show(one['ap50'])}<td>{one['objects']}"
        for one in classes
    )
    return f"<h2>Classes</h2><table><tr><th>class<th>AP<th>AP50<th>objects{rows}</table>"


def _show(value: Any) -> str:
    return f"{value:.3f}" if _is_number(value) else "-"


def _section(heading: str, content: str) -> str:
    return f"<h2>{heading}</h2><div class=figures>{content}</div>" if content else ""


def _pictures(paths: Iterable[Path], caption: str) -> str:
    return "".join(_figure(path, f"{caption} {number}") for number, path in enumerate(paths, 1))


def _figure(path: Path, caption: str) -> str:
    """Embed a picture, so that the page is one file."""
    if not path.is_file():
        return ""
    kind = "png" if path.suffix == ".png" else "jpeg"
    data = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    return f"<figure><img alt='{text}' src='data:image/{kind};base64,{data}'><figcaption>{text}</figcaption></figure>"


def _recipe(path: Path) -> str:
    if not path.is_file():
        return ""
    return f"<h2>Recipe</h2><pre>{html.escape(path.read_text(encoding='utf-8'))}</pre>"
