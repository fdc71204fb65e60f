"""Loggers: what reaches them, and runs that are read back from wandb (offline), MLflow and Trackio where installed."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from support.tiny_training import tiny_recipe, tiny_training

from poise.cli import main
from poise.data.demo import write_demo_data
from poise.engine import loggers
from poise.engine.loggers import IDS, MissingLogger, flat, require_loggers
from poise.recipes import Recipe, with_settings


class Recorder:
    """A logger that keeps what it gets."""

    made: list[Recorder] = []  # noqa: RUF012

    def __init__(self, folder: Path, recipe: Recipe, run_id: str) -> None:
        self.id, self.values, self.closed = run_id or "new", {}, 0
        Recorder.made.append(self)

    def scalars(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.values.setdefault(name, {})[step] = value

    def flush(self) -> None: ...

    def close(self) -> None:
        self.closed += 1


def train(folder: Path, name: str, epochs: int = 2) -> None:
    folder.mkdir(exist_ok=True)
    recipe = with_settings(tiny_recipe(), {"train.loggers": [name], "schedule.epochs": epochs})
    assert tiny_training(folder, recipe, count=16).run() is None


def numbers_of(folder: Path) -> dict[str, list[Any]]:
    """Scores by step as results.csv has them."""
    lines = (folder / "results.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    return {row["step"]: float(row["val/score"]) for row in rows}  # type: ignore[misc]


def test_a_logger_gets_the_numbers_and_a_resumed_run_continues_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(loggers.LOGGERS, "wandb", Recorder)
    monkeypatch.setattr(Recorder, "made", [])
    train(tmp_path / "run", "wandb", epochs=1)
    train(tmp_path / "run", "wandb", epochs=2)
    first, second = Recorder.made
    assert first.id == second.id == json.loads((tmp_path / "run" / IDS).read_text())["wandb"]
    logged = {str(step): value for one in (first, second) for step, value in one.values["val/score"].items()}
    assert logged == numbers_of(tmp_path / "run") and len(logged) == 2
    assert set(first.values) == {
        "loss/heat", "loss/width", "loss/total", "train/lr", "train/images_per_second", "val/score"
    }  # fmt: skip
    assert first.closed == second.closed == 1


def test_no_logger_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("opened without a request")

    for name in loggers.LOGGERS:
        monkeypatch.setitem(loggers.LOGGERS, name, refuse)
    assert tiny_training(tmp_path, tiny_recipe(), count=16).run() is None
    assert not (tmp_path / IDS).exists()


def test_a_missing_logger_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_demo_data(tmp_path / "scenes", train=2, val=1, size=64)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingLogger, match=r"pip install 'poise\[mlflow\]'"):
        require_loggers(["mlflow"])
    words = ["train", "atss_r18_fpn", "--data", str(data), "--out", str(tmp_path / "run"), "--loggers", "trackio"]
    assert main(words) == 1
    assert "pip install 'poise[trackio]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*words[:-1], "wandbb"]) == 2 and "none of" in capsys.readouterr().err


def test_nested_settings_are_flat() -> None:
    assert list(flat({"a": {"b": 1, "c": {}}, "d": [2]})) == [("a.b", 1), ("a.c", {}), ("d", [2])]


def wandb_records(file: Path) -> list[bytes]:
    """Records of a ``.wandb`` file: a header of 7 bytes, then LevelDB's log format in blocks of 32 KB."""
    data, position, records, parts = file.read_bytes(), 7, [], b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # complete, or the last part
            records.append(parts)
            parts = b""
    return records


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs poise[wandb]")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(tmp_path / "run", "wandb")
    (file,) = (tmp_path / "run").glob("wandb/offline-run-*/*.wandb")
    scores, config = {}, {}
    for data in wandb_records(file):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        if "val/score" in items:
            scores[str(record.history.step.num)] = float(items["val/score"])
        config |= {item.key: item.value_json for item in record.run.config.update}
    assert scores == pytest.approx(numbers_of(tmp_path / "run"))
    assert json.loads(config["schedule"])["epochs"] == 2


def test_mlflow_local_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs poise[mlflow]")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    train(tmp_path / "run", "mlflow", epochs=1)
    train(tmp_path / "run", "mlflow", epochs=2)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("poise").experiment_id])
    assert run.info.run_id == json.loads((tmp_path / "run" / IDS).read_text())["mlflow"]
    assert run.info.status == "FINISHED" and run.data.params["optimizer.name"] == "adamw"
    history = {str(one.step): one.value for one in client.get_metric_history(run.info.run_id, "val/score")}
    assert history == pytest.approx(numbers_of(tmp_path / "run"))


def test_trackio_local_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="needs poise[trackio]")
    from trackio.sqlite_storage import SQLiteStorage

    train(tmp_path / "run", "trackio")
    (name,) = SQLiteStorage.get_runs("poise")
    logs = SQLiteStorage.get_logs("poise", name)
    scores = {str(one["step"]): one["val/score"] for one in logs if "val/score" in one}
    assert scores == pytest.approx(numbers_of(tmp_path / "run"))
