"""Help of the commands: short, in sentences, without the notation of types; and quick errors of names."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys

import pytest

from benchmarks import model_table
from poise.cli import main
from poise.cli.arguments import option_names
from poise.cli.help import first_sentence, options_of
from poise.cli.train import Arguments
from poise.models.catalog import NAMES
from poise.models.option_texts import option_texts
from poise.models.table import builder_options, check_early, model_rows
from poise.recipes import get_recipe

NOTATION = re.compile(r"\{|\bINT\b|\bFLOAT\b|\bNONE\b|\(optional\)|\(required\)|tuple\[|Literal|Optional|``")


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        main([*words])
    assert not end.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "command", [["train", "atss_r18_fpn"], ["train"], ["predict"], ["eval"], ["export"], ["ablate", "atss_r18_fpn"]]
)
def test_the_short_help_fits_a_screen(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    short = help_of(capsys, *command, "--help")
    assert len(short.splitlines()) <= 40
    assert all(len(line) <= 80 for line in short.splitlines() if not line.startswith("  poise "))
    assert "examples:" in short and f"poise {' '.join(command)} --help-all" in short
    everything = help_of(capsys, *command, "--help-all")
    assert len(everything) > len(short) and not NOTATION.search(everything)


def test_every_option_of_train_has_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    options = list(options_of(Arguments))
    assert not [one.name for one in options if not one.text.endswith((".", ")"))]
    everything = help_of(capsys, "train", "--help-all")
    assert not [name for name in option_names(Arguments) if name != "name" and f"--{name}" not in everything]


def test_the_help_shows_the_values_of_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = get_recipe("atss_r50_fpn_1x")
    shown = help_of(capsys, "train", "atss_r50_fpn_1x", "--help")
    assert re.search(rf"--epochs N .*\[{recipe.schedule.epochs}\]", " ".join(shown.split()))
    assert f"[{recipe.data.batch_size}]" in shown


@pytest.mark.parametrize("name", ["dw_r18_fpn", "libra_retinanet_r18_fpn", "co_dino_r18", "nanodet_plus_m_320"])
def test_the_whole_help_has_the_options_of_the_model(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Their names and defaults are those of the builder."""
    shown = help_of(capsys, "train", name, "--help-all").partition(f"Options of {name}")[2]
    parameters = list(inspect.signature(NAMES[name].builder).parameters.values())[1:]
    own = [one for one in parameters if one.name != "backbone_weights"]
    for one in own:
        assert re.search(rf"^  {one.name}\b", shown, re.MULTILINE)
    texts = option_texts(name)
    assert [option for option, _, _ in texts] == [one.name for one in own]
    assert all(value in ("", str(one.default)) for one, (_, value, _) in zip(own, texts, strict=True))
    if name.startswith("dw"):
        unexplained = {option for option, _, text in texts if not text}
        assert {"form", "beta", "mu", "mu_total", "bag", "gamma2", "beta_small"}.isdisjoint(unexplained)


def test_a_sentence_ends_at_its_full_stop() -> None:
    assert first_sentence("Factor of 0.1, as in e.g.5; rest. Next one.") == "Factor of 0.1, as in e.g.5; rest."


QUICK = """
import sys, json
from poise.cli import main
try:
    code = main({words})
except SystemExit as end:
    code = end.code or 0
print(json.dumps([code, 'torch' in sys.modules]), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["train", "atss_r18_fpn", "--help"], 0, "usage: poise train"),
        (["train", "atss_r18_fpm", "--data", "x"], 1, "did you mean 'atss_r18_fpn'?"),
        (["train", "atss_r18_fpn", "--epoch", "3"], 2, "did you mean '--epochs'?"),
        (["train", "atss_r18_fpn", "--data", "x", "--epochs", "ten"], 2, "'ten' is not a whole number"),
        (["train", "atss_r18_fpn", "--data", "nowhere"], 1, "nowhere: does not exist"),
        (["train", "atss_r18_fpn", "--data", ".", "--model.options", "top", "3"], 1, "did you mean 'topk'?"),
        (["train", "atss_r18_fpn", "--data", ".", "--model.options", "topk", "x"], 1, "must be a whole number"),
        (["models", "atss_*"], 0, "atss_r18_fpn"),
        (["recipes", "atss_*"], 0, "atss_r50_fpn_1x"),
        (["predict", "--help"], 0, "usage: poise predict"),
    ],
)
def test_no_torch_is_loaded_for_help_lists_and_errors_of_names(words: list[str], code: int, message: str) -> None:
    run = subprocess.run([sys.executable, "-c", QUICK.format(words=words)], capture_output=True, text=True, check=False)
    output = run.stdout + run.stderr
    assert json.loads(run.stderr.splitlines()[-1]) == [code, False], output
    assert message in output


def test_the_table_has_the_models_and_options_that_are_built() -> None:
    """All names and options, parameters of some; ``python benchmarks/model_table.py`` compares everything."""

    rows = model_rows()
    assert set(rows) == set(NAMES), "run python benchmarks/model_table.py --write"
    for name, entry in NAMES.items():
        row = rows[name]
        assert builder_options(name) == model_table.options_of(entry), "run python benchmarks/model_table.py --write"
        assert (row.family, row.backbone) == (entry.builder.__name__, model_table.backbone_of(entry))
        assert row.size == (entry.preprocess.short, entry.preprocess.long)
    for name in ("atss_r18_fpn", "nanodet_plus_m_320", "faster_rcnn_r18_fpn", "dino_r18", "vfnet_r50_dcn_fpn"):
        assert rows[name].parameters == model_table.parameters_of(name)
        assert rows[name].gflops == model_table.gflops_of(name)


def test_counts_agree_with_published_ones() -> None:
    """MMDetection's model zoo and NanoDet's README: parameters in millions; 1280x800 and 320x320 pixels."""
    rows = model_rows()
    assert rows["nanodet_plus_m_320"].parameters == pytest.approx(1.17, abs=0.04)
    assert rows["faster_rcnn_r50_fpn"].parameters == pytest.approx(41.53, abs=0.3)
    assert rows["retinanet_r50_fpn"].gflops == pytest.approx(239.32 * 1344 / 1280, rel=0.03)


def test_options_are_checked_without_the_builders() -> None:
    check_early("atss_r18_fpn", {"topk": 5, "caffe": True, "frozen_stages": None, "assigner": "sim_ota"})
    check_early("a_model_of_a_plug-in", {"anything": 1})
    with pytest.raises(ValueError, match="did you mean 'channels'"):
        check_early("atss_r18_fpn", {"chanels": 64})
    with pytest.raises(ValueError, match="topk=True of 'atss_r18_fpn' must be a whole number"):
        check_early("atss_r18_fpn", {"topk": True})
