"""Tables, displays, and fused optimizers switched off by a tensor."""

from __future__ import annotations

import csv
import io

import pytest
import torch
from rich.console import Console

from poise.engine.display import LiveDisplay, PlainDisplay, SilentDisplay, Status, make_display
from poise.engine.logs import to_csv

STATUS = Status(2, 12, 150, 1200, 0.01, 31.4, 3725.0, {"cls": 0.5, "bbox": 0.25}, 17.0, 512.0)


def test_a_table_gets_a_column_for_every_name() -> None:
    rows = [{"epoch": 1, "loss/a": 0.5}, {"epoch": 2, "loss/a": 0.25, "val/ap": 0.125}]
    assert list(csv.DictReader(io.StringIO(to_csv(rows)))) == [
        {"epoch": "1", "loss/a": "0.5", "val/ap": ""},
        {"epoch": "2", "loss/a": "0.25", "val/ap": "0.125"},
    ]
    assert to_csv([]) == ""


def test_plain_lines_say_all(capsys: pytest.CaptureFixture[str]) -> None:
    display = make_display("auto", 1200, first=True)  # pytest's output is no terminal
    assert isinstance(display, PlainDisplay)
    display.step(150)
    display.status(STATUS)
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    for part in ("epoch 2/12", "step 150/1200", "loss 0.750", "cls 0.500", "lr 1.00e-02", "17 objects", "31.4 images/s",
                 "512 MB", "ETA 1:02:05"):  # fmt: skip
        assert part in line


def test_the_live_display_draws_bar_status_and_messages() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=250)
    display = LiveDisplay(1200, console)
    display.status(STATUS)
    display.message("a [message]")
    display.step(151)
    display.close()
    display.close()
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for part in ("epoch 2/12", "150/1200", "bbox 0.250", "ETA 1:02:05", "a [message]"):
        assert part in text


def test_only_the_first_process_shows_anything() -> None:
    assert isinstance(make_display("live", 1, first=False), SilentDisplay)
    assert isinstance(make_display("none", 1, first=True), SilentDisplay)
    with pytest.raises(ValueError, match="progress_display='loud'"):
        make_display("loud", 1, first=True)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_fused_optimizers_obey_found_inf(kind: type[torch.optim.Optimizer]) -> None:
    """What training on a GPU relies on: with ``found_inf`` 1 neither parameters nor moments move."""
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    parameter = torch.nn.Parameter(torch.ones(5))
    optimizer = kind([parameter], lr=0.1, fused=True, **options)  # type: ignore[call-arg]
    parameter.grad = torch.ones(5)
    optimizer.found_inf = torch.tensor(0.0)  # type: ignore[attr-defined]
    optimizer.step()
    before = parameter.detach().clone()
    state = {name: value.clone() for name, value in optimizer.state[parameter].items()}
    assert (before != 1).all()
    parameter.grad = torch.full((5,), float("nan"))
    optimizer.found_inf = torch.tensor(1.0)  # type: ignore[attr-defined]
    optimizer.step()
    assert torch.equal(parameter.detach(), before)
    assert all(torch.equal(value, state[name]) for name, value in optimizer.state[parameter].items())
