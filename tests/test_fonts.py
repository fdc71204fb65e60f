"""Class names in any script: by a font that has the letters, else as numbers with one warning."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poise import fonts
from poise.draw import draw_boxes
from poise.evaluate import panels
from poise.evaluate.figures import plot_confusion, write_figures

NAMES = ("猫", "개", "いぬ", "🐝", "cat")


@pytest.fixture(autouse=True)
def _first_warning() -> None:
    fonts._warned.clear()
    fonts.font_for.cache_clear()


@pytest.fixture
def no_system_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "SYSTEM_FONTS", ())


def picture(names: tuple[str, ...]) -> np.ndarray:
    boxes = [[5, 40 * i + 25, 90, 40 * i + 45] for i in range(len(names))]
    return np.asarray(draw_boxes(Image.new("RGB", (100, 250)), boxes, list(range(len(names))), names=names))


def test_names_without_letters_become_numbers_with_one_warning(no_system_fonts: None) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        drawn = picture(NAMES)
        picture(NAMES)
    assert len(caught) == 1 and "'猫'" in str(caught[0].message) and "fonts-noto-cjk" in str(caught[0].message)
    assert np.array_equal(drawn, picture(("0", "1", "2", "3", "cat")))


def test_european_scripts_need_no_font_of_the_system(no_system_fonts: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [fonts.readable_name(7, name) for name in ("cat", "Bär", "кошка", "")] == ["cat", "Bär", "кошка", ""]


def test_a_font_of_the_system_is_taken_where_it_has_the_letters() -> None:
    name = next(name for name in (*fonts.SYSTEM_FONTS, *fonts._of_matplotlib()) if fonts.system_font(name, 12))
    font = fonts.system_font(name, 12)
    letters = next((text for text in ("猫", "кошка", "γάτα", "⚽") if fonts._has_letters(font, text)), "")
    assert letters, f"{name} has none of these scripts"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = picture((letters,))
    assert not np.array_equal(drawn, picture(("0",)))


def truth(names: tuple[str, ...]) -> dict:
    categories = [{"id": i, "name": name} for i, name in enumerate(names)]
    images = [{"id": 1, "file_name": "a", "width": 100, "height": 100}]
    boxes = [[10 * i, 10, 9, 20] for i in range(len(names))]
    annotations = [
        {"id": i + 1, "image_id": 1, "category_id": i, "bbox": box, "area": 180, "iscrowd": 0}
        for i, box in enumerate(boxes)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def test_figures_of_an_evaluation_warn_once(
    tmp_path: Path, no_system_fonts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from poise.evaluate.coco import measure_coco
    from poise.evaluate.confusion import confusion_matrix

    data = truth(NAMES)
    found = [
        {"image_id": 1, "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9} for a in data["annotations"]
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write_figures(data, found, measure_coco(data, found).curves, tmp_path)
    assert [warning.category for warning in caught] == [fonts.FontWarning]
    labels: list[str] = []
    monkeypatch.setattr(panels.Figure, "savefig", lambda self, *_, **__: labels.extend(
        label.get_text() for label in self.axes[0].get_yticklabels()
    ))  # fmt: skip
    plot_confusion(confusion_matrix(data, found), tmp_path / "x.png")
    assert labels == ["0", "1", "2", "3", "cat", "background"]
