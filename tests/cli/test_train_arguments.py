"""From the words after ``poise train`` to a recipe; nothing is trained here."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from poise.cli import main
from poise.cli.arguments import CommandLineError, option_names
from poise.cli.train import Arguments, folder_for, parse, resolve
from poise.recipes import Recipe, get_recipe, save_recipe, with_settings
from poise.recipes.convert import setting_paths
from poise.recipes.short_options import SHORT_OPTIONS


def recipe_of(*words: str) -> Recipe:
    return resolve(parse(words))


def test_a_name_alone_is_its_recipe() -> None:
    assert recipe_of("atss_r50_fpn_1x") == get_recipe("atss_r50_fpn_1x")


def leaves(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Every setting of a recipe by its path."""
    found: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        path = f"{prefix}{field.name}"
        found |= leaves(value, f"{path}.") if is_dataclass(value) else {path: value}
    return found


def test_every_setting_is_an_option() -> None:
    options = set(option_names(Arguments))
    assert {path.replace("_", "-") for path in leaves(Recipe())} <= options


TOGETHER = ("augment.warp", "augment.jitter_canvas", "augment.redraw_empty", "train.patience")
NUMBERS = [
    path
    for path, value in leaves(Recipe()).items()
    if type(value) in (int, float, bool) and not path.startswith(TOGETHER)  # those go together only
]


@pytest.mark.parametrize("path", NUMBERS)
def test_every_number_can_be_set(path: str) -> None:
    """Spelled with ``_`` and with ``-``, as ``--name value`` and ``--name=value``."""
    value = leaves(Recipe())[path]
    other = {bool: not value, int: max(1, value), float: 0.5}[type(value)]
    assert leaves(recipe_of("atss_r50_fpn_1x", f"--{path}", str(other)))[path] == other
    assert leaves(recipe_of("atss_r50_fpn_1x", f"--{path.replace('_', '-')}={str(other).lower()}"))[path] == other


def test_lists_tables_and_choices() -> None:
    recipe = recipe_of(
        "atss_r50_fpn_1x",
        *"--schedule.milestones 3 5 --optimizer.betas 0.8 0.9 --schedule.kind cosine".split(),
        *"--model.options topk 5 caffe true nms_threshold 0.5 backbone resnet18".split(),
        *"--optimizer.lr-multipliers scale 2".split(),
    )
    assert recipe.schedule.milestones == (3, 5)
    assert recipe.optimizer.betas == (0.8, 0.9)
    assert recipe.schedule.kind == "cosine"
    assert recipe.model.options == {"topk": 5, "caffe": True, "nms_threshold": 0.5, "backbone": "resnet18"}
    assert recipe.optimizer.lr_multipliers == {"scale": 2.0}


def test_options_join_those_of_the_recipe(tmp_path: Path) -> None:
    """In a recipe that has some already: others join them, the same are replaced; from a name and from a file."""
    before = get_recipe("nanodet_plus_m_320_finetune")
    assert before.model.options == {"guide_depth": 0}
    save_recipe(with_settings(before, {"optimizer.lr_multipliers": {"head": 0.5}}), tmp_path / "own.yaml")
    words = "--model.options topk 9 guide_depth 2 --optimizer.lr-multipliers scale 2".split()
    named, loaded = (
        recipe_of("nanodet_plus_m_320_finetune", *words),
        recipe_of(f"--config={tmp_path / 'own.yaml'}", *words),
    )
    assert named.model.options == loaded.model.options == {"guide_depth": 2, "topk": 9}
    assert named.optimizer.lr_multipliers == {"scale": 2.0}
    assert loaded.optimizer.lr_multipliers == {"head": 0.5, "scale": 2.0}
    assert recipe_of("nanodet_plus_m_320_finetune").model.options == before.model.options


def test_short_options() -> None:
    words = "--data somewhere --assigner sim_ota --epochs 24 --batch-size 4 --lr 0.3 --seed 7".split()
    words += "--workers 1 --image-size 320".split()
    recipe = recipe_of("atss_r50_fpn_1x", *words)
    assert (recipe.data.path, recipe.data.batch_size, recipe.data.workers) == ("somewhere", 4, 1)
    assert (recipe.optimizer.lr, recipe.optimizer.lr_batch_size) == (0.3, 0)
    assert (recipe.train.seed, recipe.model.image_size) == (7, (320,))
    assert (recipe.schedule.epochs, recipe.schedule.milestones) == (24, (16, 22))
    assert recipe.model.options["assigner"] == "sim_ota"


def test_a_saved_recipe_is_loaded_and_changed(tmp_path: Path) -> None:
    recipe = recipe_of("gfl_r50_fpn_1x", "--train.seed", "5")
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert recipe_of("--config", str(tmp_path / "recipe.yaml")) == recipe
    assert recipe_of("--seed", "6", f"--config={tmp_path / 'recipe.yaml'}").train.seed == 6
    assert recipe_of("--resume", "--out", str(tmp_path)) == recipe


def test_a_recipe_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_recipes.py").write_text(
        "from poise.recipes import get_recipe\n"
        "def longer():\n    return get_recipe('fcos_r50_fpn_1x').with_epochs(36)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert recipe_of("my_recipes:longer").schedule.epochs == 36


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("atss_r50_fpn --shedule.epochs 3", "'--schedule.epochs'"),
        ("atss_r50_fpn --schedule.epoch 3", "'--schedule.epochs'"),
        ("atss_r50_fpn --milestones 3", "'--schedule.milestones'"),
        ("atss_r50_fpn --epoch 3", "'--epochs'"),
        ("atss_r50_fpn --epochs many", "many"),
        ("atss_r50_fpn --epochs 1.5", "1.5"),
        ("atss_r50_fpn --epochs", "--epochs"),
        ("atss_r50_fpn --schedule.kind cosinus", "cosine"),
        ("atss_r50_fpn --train.compile maybe", "maybe"),
        ("atss_r50_fpn --train.seed=-1", "train.seed=-1"),
        ("atss_r50_fpn --optimizer.betas 0.9", "--optimizer.betas"),
        ("atss_r50_fpn --config x.yaml", "not both"),
        ("", "needs a model or recipe"),
        ("--data somewhere", "needs a model or recipe"),
    ],
)
def test_wrong_settings_are_refused(words: str, message: str) -> None:
    with pytest.raises(CommandLineError, match=message.replace("[", r"\[")):
        parse(words.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("atss_r50_fpm --data x", "did you mean 'atss_r50_fpn'?"),
        ("nowhere:recipe --data x", "nowhere"),
        ("--config nothing.yaml --data x", "nothing.yaml"),
        ("atss_r50_fpn --batch-size 0 --data x", "data.batch_size=0"),
    ],
)
def test_wrong_values_end_with_one_line(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words.split()]) == 1
    assert message in capsys.readouterr().err


def test_no_data_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "atss_r50_fpn_1x"]) == 2
    assert "--data" in capsys.readouterr().err


def test_an_ill_typed_saved_recipe_names_file_and_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("schedule:\n  epochs: twelve\n")
    assert main(["train", "--config", str(path), "--data", "x"]) == 1
    output = capsys.readouterr().err
    assert str(path) in output
    assert "schedule.epochs" in output


def test_run_folders_do_not_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = parse(["atss_r50_fpn_1x", "--data", "x"])
    first = folder_for(arguments, resolve(arguments))
    assert first == Path("runs/atss_r50_fpn_1x")
    first.mkdir(parents=True)
    assert folder_for(arguments, resolve(arguments)) == Path("runs/atss_r50_fpn_1x-2")
    monkeypatch.setenv("WORLD_SIZE", "2")  # processes that train together agree on one folder
    assert folder_for(arguments, resolve(arguments)) == first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--epochs ten", "--epochs: 'ten' is not a whole number"),
        ("--lr fast", "--lr: 'fast' is not a number"),
        ("--schedule.kind round", "--schedule.kind: 'round' is none of multistep, cosine, "),
        ("--on-bad-data drop", "--on-bad-data: 'drop' is none of error, skip"),
        ("--resume", "--resume needs --out FOLDER"),
    ],
)
def test_messages_are_plain(words: str, message: str) -> None:
    with pytest.raises(CommandLineError) as caught:
        parse(["atss_r18_fpn", *words.split()])
    assert message in str(caught.value) and "class '" not in str(caught.value)


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(CommandLineError, match="there is no run to resume in .*nowhere"):
        parse(["--resume", "--out", str(tmp_path / "nowhere")])


def test_every_short_option_is_an_option_of_train() -> None:
    """One name for a setting in Python and on the command line (``model`` is the name that comes first)."""
    options = {name.replace("-", "_") for name in option_names(Arguments)}
    assert set(SHORT_OPTIONS) - {"model", "proposals"} <= options
    assert set(SHORT_OPTIONS.values()) <= {*setting_paths(Recipe), *MODEL_OPTIONS}


MODEL_OPTIONS = {
    f"model.options.{name}"
    for name in (
        *("assigner", "sampler", "criterion", "neck", "class_balance", "one_to_one", "object_balance"),
        *("score_threshold", "nms_threshold", "max_detections", "nms_similarity"),
    )
}
