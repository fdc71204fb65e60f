"""Classes of a model and categories of a data set."""

from __future__ import annotations

import pytest

from poise.evaluate import ClassWarning, match_categories

COCO = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}, {"id": 18, "name": "dog"}]


def test_the_training_data_itself() -> None:
    assert match_categories(("person", "car", "dog"), (1, 3, 18), COCO) == [1, 3, 18]


def test_another_data_set_is_matched_by_name() -> None:
    assert match_categories(("Dog", "person", "car"), (0, 1, 2), COCO) == [18, 1, 3]


def test_a_model_without_names_is_matched_by_position() -> None:
    assert match_categories(("0", "1", "2"), (0, 1, 2), COCO) == [1, 3, 18]
    with pytest.raises(ValueError, match="2 classes without names and the data 3"):
        match_categories(("0", "1"), (0, 1), COCO)


def test_common_classes_are_evaluated_with_a_warning() -> None:
    with pytest.warns(ClassWarning) as caught:
        assert match_categories(("cat", "car"), (0, 1), COCO) == [None, 3]
    assert ["cat" in str(w.message) for w in caught] == [True, False]
    assert "person, dog" in str(caught[1].message)


def test_no_class_in_common_is_an_error() -> None:
    with pytest.raises(ValueError, match="no class in common"):
        match_categories(("tree",), (1,), COCO)
