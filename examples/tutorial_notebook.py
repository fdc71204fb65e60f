"""Write examples/tutorial.ipynb from docs/tutorial.md: text as Markdown cells, commands and Python as code cells.

python examples/tutorial_notebook.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE, NOTEBOOK = ROOT / "docs" / "tutorial.md", ROOT / "examples" / "tutorial.ipynb"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```\n", re.M | re.S)


def cells(page: str) -> list[tuple[str, str]]:
    """Return (kind, text) of each cell of the page: ``markdown``, ``sh`` or ``python``."""
    found: list[tuple[str, str]] = []
    position = 0
    for block in BLOCK.finditer(page):
        found += [("markdown", page[position : block.start()]), (block[1], block[2])]
        position = block.end()
    found.append(("markdown", page[position:]))
    return [(kind, text.strip()) for kind, text in found if text.strip()]


def notebook(page: str) -> str:
    """Return the notebook as JSON text, without outputs. Links to other pages lead into docs/."""
    content: list[dict[str, Any]] = []
    for number, (kind, text) in enumerate(cells(page)):
        if kind == "markdown":
            text = re.sub(r"\]\((?!https?:|#|\.\./)", "](../docs/", text).replace("](../examples/", "](")
        if kind == "sh":
            text = "\n".join(f"!{line}" for line in text.splitlines())
        cell: dict[str, Any] = {
            "cell_type": "markdown" if kind == "markdown" else "code",
            "id": f"cell-{number}",
            "metadata": {},
            "source": text.splitlines(keepends=True),
        }
        content.append(cell if kind == "markdown" else {**cell, "execution_count": None, "outputs": []})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    whole = {"cells": content, "metadata": about, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(notebook(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(NOTEBOOK)
