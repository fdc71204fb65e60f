"""Automatic batch sizes, and freezing of stages as a setting."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poise.engine.batch_size import choose_batch_size, largest_fitting, largest_image
from poise.engine.model import named_model
from poise.engine.processes import Processes
from poise.preprocess import Preprocess
from poise.recipes import AugmentSettings, ModelSettings, Recipe, with_settings
from poise.recipes.short_options import with_options


@given(st.integers(1, 200), st.integers(1, 64))
def test_the_largest_even_number_that_fits(capacity: int, limit: int) -> None:
    found = largest_fitting(lambda images: float(images), capacity, limit)
    expected = max([1, *(n for n in range(2, min(capacity, limit) + 1, 2))])
    assert found == expected


def test_an_image_is_measured_at_its_largest_size() -> None:
    augment = AugmentSettings(short_range=(480, 960))
    assert largest_image(Preprocess(), augment) == (960, 1344)
    assert largest_image(Preprocess().with_size(320), AugmentSettings()) == (320, 320)


@pytest.mark.parametrize(("images", "accumulate", "expected"), [(1000, 1, 8), (40, 1, 4), (5, 1, 2), (1000, 4, 8)])
def test_the_rule_of_cpus(images: int, accumulate: int, expected: int) -> None:
    recipe = with_settings(with_options(Recipe(), {"batch_size": "auto"}), {"train.accumulate": accumulate})
    assert recipe.data.batch_size == "auto"
    processes, data = Processes(torch.device("cpu")), range(images)
    none: Any = None
    size, note = choose_batch_size(recipe, none, data, processes)  # type: ignore[arg-type]
    assert size == expected and "--batch-size" in note
    assert choose_batch_size(recipe, none, data, processes, before=12)[0] == 12  # type: ignore[arg-type]


def test_stages_are_frozen_by_name() -> None:
    settings = ModelSettings("atss_r18_fpn", image_size=(64,), frozen_stages=2)
    model = named_model(settings, 3)
    frozen = {name.split(".")[3] for name, p in model.named_parameters() if not p.requires_grad and "backbone" in name}
    assert frozen == {"conv1", "bn1", "layer1", "layer2"}
    with pytest.raises(ValueError, match="give one of them"):
        named_model(ModelSettings("atss_r18_fpn", frozen_stages=2, options={"frozen_stages": 1}), 3)
    with pytest.raises(ValueError, match="at least -1"):
        ModelSettings(frozen_stages=-2)
