"""Ablations as plans: grids, files, the articles' tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from poise.models import create_model
from poise.recipes import finetune, get_recipe, with_settings
from poise.recipes.ablation import Ablation, Variant, grid, load_ablation
from poise.recipes.articles import TABLES


def test_a_grid_is_every_combination() -> None:
    variants = grid({"model.options.topk": [5, 9], "assigner": ["atss"], "train.channels_last": [True, False]})
    assert [variant.name for variant in variants] == [
        "topk=5, assigner=atss, channels_last=true",
        "topk=5, assigner=atss, channels_last=false",
        "topk=9, assigner=atss, channels_last=true",
        "topk=9, assigner=atss, channels_last=false",
    ]
    changes = {"model.options.topk": 9, "model.options.assigner": "atss", "train.channels_last": False}
    assert variants[3].changes == changes


def test_settings_with_one_last_name_keep_their_whole_names() -> None:
    assert grid({"model.name": ["fcos_r18_fpn"], "optimizer.name": ["sgd"]})[0].name == (
        "model.name=fcos_r18_fpn, optimizer.name=sgd"
    )


def test_runs_go_seed_after_seed_and_keep_what_all_share() -> None:
    ablation = Ablation((Variant("a", {"model.options.topk": 5}), Variant("b: (c)", {})), (3, 1))
    recipe = with_settings(finetune("atss_r18_fpn"), {"model.options": {"channels": 64}})
    runs = ablation.runs(recipe)
    assert [run.folder for run in runs] == ["a/seed-3", "b-c/seed-3", "a/seed-1", "b-c/seed-1"]
    assert runs[0].recipe == with_settings(recipe, {"train.seed": 3, "model.options": {"channels": 64, "topk": 5}})
    assert runs[3].recipe == with_settings(recipe, {"train.seed": 1})


def test_another_model_is_trained_without_the_options_that_it_does_not_have() -> None:
    runs = Ablation(grid({"model.name": ["fcos_r18_fpn", "atss_r18_fpn", "dw_r18_fpn"]})).runs(finetune("fcos_r18_fpn"))
    opened = {"openable_sides": True}
    assert [run.recipe.model.options for run in runs] == [opened, {}, opened]
    for run in runs:
        assert run.recipe == finetune(run.recipe.model.name)


@pytest.mark.parametrize(
    ("variants", "seeds", "message"),
    [
        ((), (0,), "at least one variant"),
        ((Variant("a", {}),), (), "one seed"),
        ((Variant("a", {}),), (1, 1), "repeat"),
        ((Variant("a b", {}), Variant("a/b", {})), (0,), "'a b' and 'a/b' would share a folder"),
        ((Variant("a", {}), Variant("a", {})), (0,), "would share a folder"),
    ],
)
def test_plans_that_make_no_table_are_refused(variants: tuple, seeds: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ablation(variants, seeds)


def test_a_wrong_setting_names_the_variant() -> None:
    with pytest.raises(ValueError, match="variant 'longer': no setting 'schedule.epoch', did you mean"):
        Ablation((Variant("longer", {"schedule.epoch": 3}),)).runs(finetune("atss_r18_fpn"))


def test_a_file_names_variants(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    path.write_text("variants:\n  base:\n  more: {lr: 0.1, model: fcos_r18_fpn}\nseeds: [0, 7]\n", encoding="utf-8")
    ablation = load_ablation(path)
    assert ablation.seeds == (0, 7)
    assert [(variant.name, dict(variant.changes)) for variant in ablation.variants] == [
        ("base", {}),
        ("more", {"optimizer.lr": 0.1, "optimizer.lr_batch_size": 0, "model.name": "fcos_r18_fpn"}),
    ]
    path.write_text("vary: {batch_size: [4, 8]}", encoding="utf-8")
    assert [variant.name for variant in load_ablation(path).variants] == ["batch_size=4", "batch_size=8"]


@pytest.mark.parametrize(
    "text",
    [
        "variants: [",
        "- a",
        "{}",
        "variants: {a: {}}\nvary: {lr: [1]}",
        "variants: {a: {}}\nsed: [1]",
        "variants: {a: 3}",
        "variants: 3",
        "vary: {lr: 3}",
        "variants: {a: {}}\nseeds: [x]",
        "variants: {a: {}}\nseeds: 3",
    ],
)
def test_a_file_that_is_no_table_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="table.yaml"):
        load_ablation(path)


@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_an_articles_table_builds_another_model(name: str) -> None:
    """Or weights its classes or augments its images otherwise."""
    table = TABLES[name]
    models, others = [], []
    for run in table.ablation.runs(get_recipe(table.recipe))[: len(table.ablation.variants)]:
        with torch.device("meta"):
            models.append(create_model(run.recipe.model.name, 3, **run.recipe.model.options))
            others.append(f"{run.recipe.train.class_weights} {run.recipe.augment}")
    described = {(one.name, own, *sorted(one.options.items())) for one, own in zip(models, others, strict=True)}
    assert len(described) == len(models)
