"""The lab during training: it changes no weight, goes on exactly after a kill, and counts over processes."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from engine.test_distributed import on_ranks
from engine.test_resume import assert_equal, in_a_process
from support.slow import slow_but
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from poise.cli.train import parse, resolve
from poise.data.demo import write_demo_data
from poise.engine import train
from poise.engine.step import Stepper
from poise.recipes import Recipe, finetune, with_settings
from poise.storage import read_safely
from poise.structures import Batch

SMALL: dict[str, dict[str, Any]] = {
    "atss_r18_fpn": {"channels": 16, "depth": 1},
    "dw_r18_fpn": {"channels": 16, "depth": 1},
    "nanodet_plus_m_320": {},
    "libra_faster_rcnn_r18_fpn": {"channels": 16, "hidden": 32, "anchors": 32, "regions": 16, "proposals": 50},
    "co_dino_r18": {
        "channels": 32,
        "attention_heads": 4,
        "hidden": 32,
        "queries": 20,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "max_auxiliary_queries": 20,
        "denoising": 5,
    },
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_data(tmp_path_factory.mktemp("data") / "scenes", train=6, val=1, size=64)


def recipe(name: str = "atss_r18_fpn", epochs: int = 2, **train_settings: Any) -> Recipe:
    backbone = {} if "nanodet" in name else {"backbone": "test_byobnet"}
    settings = {
        "model.backbone_weights": "none",
        "model.options": {**backbone, **SMALL[name]},
        "data.batch_size": 2 * int(train_settings.get("accumulate", 1)),
        "data.workers": 0,
        "data.val": "none",
        **{f"train.{key}": value for key, value in train_settings.items()},
    }
    return with_settings(finetune(name, epochs, 64), settings)


def run(out: Path, data: Path, plan: Recipe, resume: bool = False) -> dict[str, Any]:
    train(plan, data=data, out=out, resume=resume, device="cpu", progress_display="none")
    return read_safely(out / "last.pt")["training"]


def table(out: Path) -> list[dict[str, str]]:
    with (out / "lab.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", slow_but(SMALL, ["atss_r18_fpn"]))
def test_weights_are_the_same_bit_for_bit(name: str, tmp_path: Path, scenes: Path) -> None:
    plain = run(tmp_path / "plain", scenes, recipe(name))
    seen = run(tmp_path / "seen", scenes, recipe(name, lab_every=2, lab_images=3))
    assert_equal(plain["network"], seen["network"])
    assert_equal(plain["optimizer"], seen["optimizer"])
    rows = table(tmp_path / "seen")
    stages = {row["stage"] for row in rows}
    wanted = {"libra_faster_rcnn_r18_fpn": {"rpn", "rcnn"}, "nanodet_plus_m_320": {"dense", "guide"}}
    assert stages >= wanted.get(name, {"queries", "atss/dense"} if "dino" in name else {"dense"})
    assert {row["step"] for row in rows if row["source"] == "batch"} == {"2", "4", "6"}
    probes = [row for row in rows if row["source"] == "probe"]
    assert {row["step"] for row in probes} == {"3", "6"}
    kept = [row for row in probes if row["step"] == "6" and row["stage"] in ("dense", "rpn", "queries")]
    assert kept and all(0 <= float(row["churn"]) <= 1 for row in kept)
    assert not any(row["churn"] for row in probes if row["step"] == "3" or row["stage"] == "rcnn")
    assert not (tmp_path / "plain" / "lab.csv").exists()


def test_numbers_go_to_tensorboard(tmp_path: Path, scenes: Path) -> None:
    run(tmp_path / "run", scenes, recipe(lab_every=1, lab_images=2))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("lab_batch/dense/positives")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events.Scalars("lab_probe/dense/churn")] == [6]
    rows = [row for row in table(tmp_path / "run") if row["source"] == "batch"]
    assert [event.value for event in events.Scalars("lab_batch/dense/entropy")] == pytest.approx(
        [float(row["entropy"]) for row in rows], rel=1e-5
    )


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_table(tmp_path: Path, scenes: Path) -> None:
    plan = recipe(epochs=3, lab_every=2, lab_images=3, save_every=1)

    def dies() -> None:
        step = Stepper.__call__

        def stepped(self: Stepper, batches: Sequence[Batch]) -> Any:
            if self.state.position.step == 4:  # in the second epoch: the first one's positives must be remembered
                os.kill(os.getpid(), signal.SIGKILL)
            return step(self, batches)

        Stepper.__call__ = stepped  # type: ignore[method-assign]
        run(tmp_path / "parts", scenes, plan)

    assert in_a_process(dies) == -signal.SIGKILL
    with (tmp_path / "parts" / "lab.csv").open("a") as file:
        file.write("999,9,batch,dense,1\n4,1,ba")  # steps that are to be done again, and half a line
    whole = run(tmp_path / "whole", scenes, plan)
    assert_equal(run(tmp_path / "parts", scenes, plan, resume=True)["network"], whole["network"])
    assert (tmp_path / "parts" / "lab.csv").read_text() == (tmp_path / "whole" / "lab.csv").read_text()
    assert sum(bool(row["churn"]) for row in table(tmp_path / "whole")) == 2


@pytest.mark.slow
def test_several_processes(tmp_path: Path, scenes: Path) -> None:
    """All count, the first one writes; only it judges the probe, and nobody waits for what others do not compute."""

    def work(out: str, **settings: int) -> None:
        plan = recipe(epochs=2, **settings)
        train(plan, data=scenes, out=tmp_path / out, device="cpu", progress_display="none")

    settings = {"lab_every": 1, "lab_images": 3}
    assert on_ranks(2, lambda _: work("plain")) == [0, 0]
    assert on_ranks(2, lambda _: work("seen", **settings)) == [0, 0]
    plain, seen = (read_safely(tmp_path / out / "last.pt")["training"]["network"] for out in ("plain", "seen"))
    assert all(torch.equal(plain[key], seen[key]) for key in plain)
    rows = table(tmp_path / "seen")
    counts = [float(row["objects"]) for row in rows if row["source"] == "batch" and row["epoch"] == "1"]
    run(tmp_path / "one", scenes, recipe(**settings))
    alone = [row for row in table(tmp_path / "one") if row["source"] == "batch" and row["epoch"] == "1"]
    assert counts == [float(row["objects"]) for row in alone]
    assert len([row for row in rows if row["churn"]]) == 1


def test_the_option(tmp_path: Path) -> None:
    settings = resolve(parse(["atss_r18_fpn", "--data", "d", "--lab-every", "50", "--train.lab-images", "8"])).train
    assert (settings.lab_every, settings.lab_images) == (50, 8)
    assert Recipe().train.lab_every == 0
    with pytest.raises(ValueError, match="lab_every=-1"):
        recipe(lab_every=-1)


def test_averages_and_accumulation(tmp_path: Path, scenes: Path) -> None:
    settings = {"ema_decay": 0.9, "accumulate": 3}
    plain = run(tmp_path / "plain", scenes, recipe(epochs=1, **settings))
    seen = run(tmp_path / "seen", scenes, recipe(epochs=1, lab_every=1, lab_images=2, **settings))
    assert_equal(plain["network"], seen["network"])
    assert_equal(plain["ema"], seen["ema"])
    batch, probe = table(tmp_path / "seen")  # one step of three parts, and the probe
    assert (batch["step"], batch["source"], probe["source"]) == ("1", "batch", "probe")
    run(tmp_path / "parts", scenes, recipe(epochs=1, lab_every=1, lab_images=0))
    parts = table(tmp_path / "parts")  # the same images in three steps
    assert float(batch["objects"]) == sum(float(row["objects"]) for row in parts) and len(parts) == 3
