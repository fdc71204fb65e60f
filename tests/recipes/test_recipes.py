"""Recipes: the published numbers, strict conversion, names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poise.models import list_models
from poise.recipes import (
    AugmentSettings,
    ModelSettings,
    Recipe,
    describe_recipe,
    finetune,
    from_dict,
    get_recipe,
    list_recipes,
    load_recipe,
    save_recipe,
    to_dict,
    with_settings,
)


@pytest.mark.parametrize("name", list_recipes())
def test_published_recipes_name_real_models_and_survive_yaml(name: str, tmp_path: Path) -> None:
    recipe = get_recipe(name)
    assert recipe.model.name in list_models()
    assert name.startswith(("claims_", "small_data")) or name.replace("_9enc", "").startswith(recipe.model.name)
    assert describe_recipe(name).endswith(".")
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize("name", list_recipes("*_1x"))
def test_one_x_is_twelve_epochs_of_sixteen_images(name: str) -> None:
    recipe = get_recipe(name)
    assert (recipe.schedule.epochs, recipe.schedule.milestones, recipe.schedule.gamma) == (12, (8, 11), 0.1)
    rate = 0.02 if "rcnn" in name else 0.01
    assert (recipe.data.batch_size, recipe.optimizer.lr, recipe.optimizer.lr_batch_size) == (16, rate, 16)
    assert (recipe.optimizer.name, recipe.optimizer.momentum, recipe.optimizer.weight_decay) == ("sgd", 0.9, 1e-4)
    assert recipe.schedule.warmup_steps == (1000 if name.startswith(("dw", "autoassign")) else 500)
    assert not recipe.data.keep_empty and recipe.data.min_side == 32


def test_what_papers_do_otherwise() -> None:
    fcos = get_recipe("fcos_r50_fpn_1x")
    assert (fcos.optimizer.bias_lr_multiplier, fcos.optimizer.bias_decay_multiplier) == (2, 0)
    assert fcos.schedule.warmup_ratio == pytest.approx(1 / 3)
    dw, vfnet = get_recipe("dw_r50_dcn_fpn_ms_2x"), get_recipe("vfnet_r2_101_dcn_fpn_ms_2x")
    assert (dw.optimizer.norm_decay_multiplier, dw.optimizer.bias_lr_multiplier) == (0, 1)
    assert (vfnet.optimizer.bias_lr_multiplier, vfnet.optimizer.bias_decay_multiplier) == (2, 0)
    assert (vfnet.schedule.warmup_ratio, dw.schedule.warmup_ratio) == (0.1, 0.001)
    assert dw.augment.short_range == vfnet.augment.short_range == (480, 960)
    gfl = get_recipe("gfl_r50_fpn_ms_2x")
    assert gfl.augment.short_range == (480, 800)
    assert (gfl.schedule.epochs, gfl.schedule.milestones) == (24, (16, 22))
    assert get_recipe("atss_r50_fpn_1x").schedule.warmup_ratio == 0.001


def test_every_model_is_a_recipe() -> None:
    assert get_recipe("atss_r18_fpn") == finetune("atss_r18_fpn")


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'atss_r50_fpn_1x'"):
        get_recipe("atss_r50_fpn_1y")
    with pytest.raises(ValueError, match="did you mean 'schedule.epochs'"):
        from_dict({"schedule": {"epcohs": 3}})
    with pytest.raises(ValueError, match="did you mean 'optimizer'"):
        from_dict({"optimiser": {}})
    with pytest.raises(ValueError, match="it must be module:function"):
        get_recipe("no.such.module:recipe")


def test_ones_own_function_is_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "from poise.recipes import finetune\ndef mine(): return finetune('gfl_r18_fpn', 7)\ndef other(): return 3\n"
    (tmp_path / "recipes_of_a_user.py").write_text(lines)
    monkeypatch.syspath_prepend(tmp_path)
    assert get_recipe("recipes_of_a_user:mine").schedule.epochs == 7
    with pytest.raises(ValueError, match="returned a int"):
        get_recipe("recipes_of_a_user:other")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schedule.epochs", "3", "must be a whole number"),
        ("schedule.epochs", 2.5, "must be a whole number"),
        ("schedule.epochs", True, "must be a whole number"),
        ("schedule.epochs", 0, "at least 1"),
        ("optimizer.lr", "fast", "must be a number"),
        ("optimizer.lr", -1.0, "must be positive"),
        ("optimizer.name", "sdg", "did you mean 'sgd'"),
        ("optimizer.betas", [0.9], "list of 2"),
        ("train.compile", 1, "true or false"),
        ("data.path", 3, "must be a string"),
        ("model", 3, "must be a table"),
        ("model.image_size", [1, 2, 3], "one number or"),
        ("model.options", [1], "must be a table"),
        ("augment.flip", 1.5, r"must lie in \[0, 1\]"),
        ("augment.short_range", [800, 480], "minimum, maximum"),
        ("schedule.milestones", [11, 8], "must increase"),
        ("train.accumulate", 0, "at least 1"),
        ("evaluate.every", None, "must be a whole number"),
    ],
)
def test_ill_typed_settings_are_refused(path: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        with_settings(Recipe(), {path: value})
    assert path in str(caught.value)


def test_changes_reach_every_setting() -> None:
    recipe = with_settings(Recipe(), {"schedule.epochs": 3, "model.options": {"channels": 64}, "optimizer.lr": 1})
    assert recipe.schedule.epochs == 3 and recipe.model.options == {"channels": 64}
    assert isinstance(recipe.optimizer.lr, float)
    with pytest.raises(ValueError, match="is a value, not a group"):
        with_settings(Recipe(), {"schedule.epochs.more": 3})


def test_yaml_numbers_like_1e4_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("optimizer:\n  lr: 1e-3\n")
    assert load_recipe(tmp_path / "a.yaml").optimizer.lr == 1e-3


@pytest.mark.parametrize("text", ["a: [1", "!!python/object/apply:os.system ['true']", "- 1\n"])
def test_broken_or_hostile_yaml_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"a\.yaml"):
        load_recipe(tmp_path / "a.yaml")


@given(epochs=st.integers(1, 300))
def test_other_lengths_scale_the_milestones(epochs: int) -> None:
    schedule = get_recipe("atss_r50_fpn_1x").with_epochs(epochs).schedule
    assert schedule.epochs == epochs
    assert all(1 <= milestone < epochs for milestone in schedule.milestones)
    if epochs % 12 == 0:
        assert schedule.milestones == (epochs * 8 // 12, epochs * 11 // 12)


def test_dicts_hold_plain_data_only() -> None:
    recipe = Recipe(model=ModelSettings(image_size=(320,)), augment=replace(AugmentSettings(), short_range=(4, 8)))
    values = to_dict(recipe)
    assert values["model"]["image_size"] == [320] and values["augment"]["short_range"] == [4, 8]
    assert from_dict(values) == recipe


def test_dense_one_to_one_mixes_until_the_last_epochs() -> None:
    for epochs, plain in ((12, 5), (24, 10)):
        dense, own = get_recipe(f"dino_r50_dense_{epochs}e"), get_recipe(f"dino_r50_{epochs}e")
        mixed = replace(own.augment, mosaic=0.5, mixup=0.5, plain_epochs=plain)
        assert dense == replace(own, augment=mixed, model=replace(own.model, options={"class_loss": "matchability"}))
