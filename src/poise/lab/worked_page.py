"""The page of a worked example: one self-contained HTML file with the figure and tables."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

from torch import Tensor

from poise.lab.worked_example import WorkedExample
from poise.lab.worked_figure import draw_example
from poise.lab.worked_text import candidate_rows, conflicts_text, object_rows, result_text, sizes_text

MAX_TABLES = 60  # objects whose candidates are listed
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 76rem; padding: 0 1rem; color: #1b1f24; }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #d8dee4; text-align: left; white-space: nowrap; }
img { width: 100%; height: auto; } code, pre { font-size: 13px; } .note { color: #57606a; }
@media (prefers-color-scheme: dark) {
  body { background: #16191d; color: #dfe3e8; } th, td { border-color: #3a4048; } .note { color: #9aa4af; }
  img { background: #fff; }
}
"""


def figure_bytes(
    example: WorkedExample, pixels: Tensor, number: int, class_names: Sequence[str], *, title: str
) -> bytes:
    """Draw the figure as PNG; arguments as of ``draw_example``."""
    stream = io.BytesIO()
    draw_example(example, pixels, number, class_names, title=title).savefig(stream, dpi=110, format="png")
    return stream.getvalue()


def example_page(
    example: WorkedExample,
    figure: bytes,
    number: int,
    class_names: Sequence[str],
    *,
    title: str,
    notes: Sequence[str] = (),
) -> str:
    """Return the text of the HTML file: figure, tensors, objects, candidates of each object, conflicts, result."""
    picture = base64.b64encode(figure).decode()
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        *(f"<p>{html.escape(line)}</p>" for line in sizes_text(example).splitlines()),
        f'<img alt="the image with its objects and positives, one object in detail, and the matrices" '
        f'src="data:image/png;base64,{picture}">',
        *(f'<p class="note">{html.escape(note)}</p>' for note in notes),
        "<h2>Tensors, in the order of their computation</h2>",
        _table([("tensor", "what it is", "formula", "shape"), *_tensor_rows(example)]),
    ]
    if example.num_objects:
        parts += ["<h2>Objects</h2>", _table(object_rows(example, class_names)), "<h2>Candidates of each object</h2>"]
        for m in range(min(example.num_objects, MAX_TABLES)):
            opened = " open" if m == number else ""
            name = html.escape(f"object {m}, {class_names[int(example.truth.labels[0, m])]}")
            table = _table(candidate_rows(example, m))
            parts.append(
                f"<details{opened}><summary>{name}: {len(example.candidates(m))} candidates</summary>{table}</details>"
            )
        parts += ["<h2>Conflicts</h2>", f"<pre>{html.escape(conflicts_text(example))}</pre>"]
    parts += ["<h2>Result</h2>", f"<pre>{html.escape(result_text(example))}</pre>"]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _tensor_rows(example: WorkedExample) -> list[tuple[str, ...]]:
    return [(name, step.title, step.formula, step.shape) for name, step in example.steps.items()]


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in body)
    return f"<table><tr>{cells}</tr>{lines}</table>"
