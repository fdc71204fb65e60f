"""Two processes accumulate the totals of one process with the joined batch, also when a resumed run goes on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from engine.test_distributed import on_ranks

from poise.data.demo import write_demo_data
from poise.engine import train
from poise.engine.step import Stepper
from poise.recipes import finetune, with_settings
from poise.storage import read_safely
from poise.structures import Batch

ALL = 4096  # more than there are anchors and proposals: nothing is sampled at random
SMALL = {"backbone": "test_resnet", "channels": 16, "norm_eval": True}
STAGE = {"hidden": 16, "anchors": ALL, "regions": ALL, "proposals": 50}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "seesaw": ("faster_rcnn_r18_fpn", STAGE),
    "equalization_v2": ("faster_rcnn_r18_fpn", STAGE),
    "equalized_focal": ("retinanet_r18_fpn", {"depth": 1}),
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_data(tmp_path_factory.mktemp("data") / "scenes", train=8, val=1, size=64)


def run(out: Path, data: Path, name: str, *, stop: int = -1, resume: bool = False) -> None:
    """Train for four steps of four images; process ``RANK`` 1 stops all before step ``stop``."""
    model, options = CASES[name]
    settings = {
        "model.backbone_weights": "none",
        "model.options": {**SMALL, **options, "class_balance": name},
        "optimizer.name": "sgd",
        "optimizer.lr": 0.001,
        "data.batch_size": 4,
        "data.workers": 0,
        "data.val": "none",
    }
    step = Stepper.__call__

    def stepped(self: Stepper, batches: Sequence[Batch]) -> Any:
        if self.state.position.step == stop and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), 15)
        return step(self, batches)

    Stepper.__call__ = stepped  # type: ignore[method-assign]
    try:
        plan = with_settings(finetune(model, 2, 64), settings)
        train(plan, data=data, out=out, resume=resume, device="cpu", progress_display="none")
    finally:
        Stepper.__call__ = step  # type: ignore[method-assign]


def totals(out: Path) -> torch.Tensor:
    training = read_safely(out / "last.pt")["training"]
    (found,) = (value for key, value in training["network"].items() if key.endswith("class_totals.totals"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_accumulate_what_one_does(name: str, tmp_path: Path, scenes: Path) -> None:
    run(tmp_path / "one", scenes, name)
    assert on_ranks(2, lambda _: run(tmp_path / "two", scenes, name, stop=2)) == [0, 0]
    stopped = totals(tmp_path / "two")
    assert read_safely(tmp_path / "two" / "last.pt")["training"]["step"] == 3
    assert on_ranks(2, lambda _: run(tmp_path / "two", scenes, name, resume=True)) == [0, 0]
    one, two = totals(tmp_path / "one"), totals(tmp_path / "two")
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-5)
    assert bool((two >= stopped).all()) and bool((two[:, 0] > stopped[:, 0]).any()) and bool(stopped.any())
