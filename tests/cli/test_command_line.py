"""Help, version, unknown words: common to all commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import poise
from poise.cli import main
from poise.cli.main import COMMANDS


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)


def test_no_command_prints_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.split() == ["poise", poise.__version__]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert not end.value.code
    assert f"usage: poise {name}" in capsys.readouterr().out


def test_help_needs_no_torch() -> None:
    code = "import sys; from poise.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_module_and_command_are_one() -> None:
    words = [sys.executable, "-m", "poise", "--version"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.startswith("poise ")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["trian"], 2, "did you mean 'train'?"),
        (["models", "--jsno"], 2, "did you mean '--json'?"),
        (["models", "a", "b"], 2, "b"),
        (["models", "nothing*"], 1, "no model matches"),
        (["recipes", "nothing*"], 1, "no recipe matches"),
        (["eval", "best.pt"], 2, "--data"),
        (["check"], 2, "data"),
        (["predict", "--score-threshold", "high", "a", "b"], 2, "high"),
    ],
)
def test_wrong_words_are_named(words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == code
    output = capsys.readouterr()
    assert message in output.err.lower() or message in output.err
    assert "Traceback" not in output.err
    assert output.err.startswith("poise: ")
    assert len(output.err.splitlines()) == 1


def test_debug_shows_where(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        main(["--debug", "eval", str(tmp_path / "nothing.pt"), "--data", str(tmp_path)])


def test_ctrl_c_is_not_an_error_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> dict[str, object]:
        raise KeyboardInterrupt

    monkeypatch.setattr("poise.cli.models.model_rows", interrupted)
    assert main(["models"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error() -> None:
    """As in ``poise models | head -n 1``."""
    command = f"{sys.executable} -m poise models | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert len(done.stdout.splitlines()) == 1
