"""A whole run from a recipe: real model, real files, the folder that it leaves."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from poise.engine import FolderInUse, RunResult, train
from poise.engine.locks import locked
from poise.engine.pictures import grid_shape
from poise.engine.stopping import StopRequest
from poise.evaluate.metrics import Metrics
from poise.models.files import load_model
from poise.recipes import Recipe, finetune, load_recipe, with_settings
from poise.storage import read_safely


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO data set of bright squares, with ids that are not 0, 1, …"""
    root = tmp_path_factory.mktemp("squares")
    draws = np.random.default_rng(0)
    for split, count in (("train", 10), ("valid", 4)):
        (root / split).mkdir()
        images, annotations = [], []
        for i in range(count):
            pixels = draws.integers(0, 60, (48, 64, 3), dtype=np.uint8)
            for _ in range(i % 3):
                x, y = (int(v) for v in draws.integers(2, 24, 2))
                pixels[y : y + 20, x : x + 20] = 220
                box = {"id": len(annotations) + 1, "image_id": 100 + i, "category_id": 7, "bbox": [x, y, 20, 20]}
                annotations.append({**box, "area": 400, "iscrowd": 0})
            Image.fromarray(pixels).save(root / split / f"{i}.png")
            images.append({"id": 100 + i, "file_name": f"{i}.png", "width": 64, "height": 48})
        coco = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "square"}]}
        (root / split / "_annotations.coco.json").write_text(json.dumps(coco))
    return root


def small(epochs: int = 2, **changes: object) -> Recipe:
    settings = {
        "model.backbone_weights": "none",
        "model.options": {"channels": 16, "depth": 1},
        "data.batch_size": 4,
        "data.workers": 0,
        "train.log_every": 2,
        "train.save_every": 2,
        "evaluate.pictures": 1,
        "augment.mosaic": 0.5,
        "evaluate.every": 1,
    }
    return with_settings(finetune("atss_mnv3s_fpn", epochs, 64), {**settings, **changes})


def run(out: Path, data: Path, recipe: Recipe, **options: object) -> RunResult:
    return train(recipe, data=data, out=out, device="cpu", progress_display="plain", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, squares: Path) -> RunResult:
    return run(tmp_path_factory.mktemp("runs") / "a", squares, small())


def test_the_folder_holds_everything(finished: RunResult, squares: Path) -> None:
    names = {path.name for path in finished.out.iterdir()}
    assert names >= {
        "recipe.yaml", "results.csv", "tensorboard", "best.pt", "last.pt", "classes.txt", "curves.png",
        "train_batch_0.jpg", "train_batch_1.jpg", "train_batch_2.jpg", "val_0.jpg", "precision_recall.png",
        "confusion.png", "metrics.json", "captions.json", "run.json",
    }  # fmt: skip
    assert "previous.pt" not in names  # a finished run needs no second checkpoint
    assert "run.lock" not in names and not list(finished.out.glob(".*"))
    assert (finished.out / "classes.txt").read_text() == "square\n"
    assert load_recipe(finished.out / "recipe.yaml") == with_settings(small(), {"data.path": str(squares)})
    with (finished.out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "3"), ("2", "6")]
    total = sum(float(value) for name, value in rows[0].items() if name.startswith("loss/") and name != "loss/total")
    assert float(rows[0]["loss/total"]) == pytest.approx(total)
    events = EventAccumulator(str(finished.out / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("val/ap")] == [3, 6]
    for picture in ("train_batch_0.jpg", "val_0.jpg", "curves.png"):
        Image.open(finished.out / picture).verify()


def test_grids_have_no_holes() -> None:
    """Full and nearly square, with as many pictures as possible."""
    shapes = {count: grid_shape(count) for count in range(1, 17)}
    assert all(columns * rows <= count and columns >= rows for count, (columns, rows) in shapes.items())
    assert shapes[1] == (1, 1) and shapes[2] == (2, 1) and shapes[8] == (4, 2) and shapes[16] == (4, 4)
    assert all(count - columns * rows <= 2 for count, (columns, rows) in shapes.items())


def test_a_run_resumed_after_its_best_epoch_reports_it(finished: RunResult, squares: Path, tmp_path: Path) -> None:
    """Metrics and figures are of best.pt, whichever process made it."""
    shutil.copytree(finished.out, tmp_path / "run")
    for name in ("metrics.json", "confidence.png"):
        (tmp_path / "run" / name).unlink()
    run(tmp_path / "run", squares, small(), resume=True)
    before, after = (json.loads((folder / "metrics.json").read_text()) for folder in (finished.out, tmp_path / "run"))
    assert after == before and after["epoch"] == finished.best_epoch
    assert Metrics.from_dict(after).to_dict() == {name: after[name] for name in Metrics.from_dict(after).to_dict()}
    assert (tmp_path / "run" / "confidence.png").is_file()


def test_the_result_is_the_best_epoch(finished: RunResult) -> None:
    assert finished.finished and finished.exit_code == 0 and finished.epochs == 2
    best = read_safely(finished.best)
    assert best["epoch"] == finished.best_epoch and best["metrics"]["ap"] == finished.metrics["ap"]


def test_the_model_file_needs_nothing_else(finished: RunResult) -> None:
    model = load_model(finished.out)
    assert (model.class_names, model.category_ids, model.num_classes) == (("square",), (7,), 1)
    assert model.preprocess.short == model.preprocess.long == 64 and not model.training
    average = read_safely(finished.last)["training"]["ema"]
    last = load_model(finished.out / "last")
    assert all(torch.equal(value, average[name]) for name, value in last.network.state_dict().items())
    assert len(model([torch.rand(3, 48, 64)])) == 1


def test_a_folder_is_not_overwritten(finished: RunResult, squares: Path) -> None:
    with pytest.raises(ValueError, match="already has a run: --resume continues it, another --out starts a new one"):
        run(finished.out, squares, small())


def test_a_living_run_keeps_others_out(tmp_path: Path, squares: Path) -> None:
    with locked(tmp_path), pytest.raises(FolderInUse, match=f"process {os.getpid()}"):
        run(tmp_path, squares, small())


def test_stopped_and_resumed_is_the_same_to_the_bit(
    finished: RunResult,
    squares: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from poise.engine.step import Stepper

    step = Stepper.__call__

    def then_terminate(self: Stepper, batches: object) -> object:
        record = step(self, batches)  # type: ignore[arg-type]
        if record.position.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return record

    monkeypatch.setattr(Stepper, "__call__", then_terminate)
    stopped = run(tmp_path, squares, small())
    assert (stopped.stopped_by, stopped.exit_code, stopped.epochs) == ("SIGTERM", 143, 1)
    monkeypatch.undo()
    done = run(tmp_path, squares, with_settings(small(), {"data.workers": 1}), resume=True)
    output = capsys.readouterr().out
    assert "resuming at epoch 2, step 4" in output and "changed since the checkpoint: data.workers: 0 -> 1" in output
    assert done.finished and done.metrics == pytest.approx(finished.metrics, abs=0, rel=0, nan_ok=True)
    ours, theirs = (read_safely(result.last)["training"] for result in (done, finished))
    for part in ("network", "ema"):
        assert all(torch.equal(value, theirs[part][name]) for name, value in ours[part].items())


def test_resume_without_a_checkpoint_begins(squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, squares, small(1), resume=True).finished
    assert "starting from the beginning" in capsys.readouterr().out


def test_starting_from_ones_own_weights(finished: RunResult, squares: Path, tmp_path: Path) -> None:
    recipe = small(1, **{"model.weights": str(finished.out), "optimizer.lr": 1e-12, "data.val": "none"})
    result = run(tmp_path, squares, recipe)
    before, after = (load_model(out).network.neck.state_dict() for out in (finished.out, result.out))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value)
    assert result.metrics == {} and result.best_epoch == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.batch_size": 4, "train.accumulate": 3}, "is not a multiple of train.accumulate=3"),
        ({"evaluate.metric": "map"}, "evaluate.metric='map' is none of ap, ap50"),
        ({"model.name": "atss_r19_fpn"}, "did you mean"),
        ({"model.options": {"chanels": 3}}, "did you mean 'channels'"),
    ],
)
def test_recipes_that_do_not_fit(squares: Path, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(tmp_path, squares, small(1, **changes))


def test_no_data_and_no_device(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no data set"):
        train(small(), out=tmp_path, device="cpu")
    with pytest.raises(ValueError, match="device 'gpu'"):
        train(small(), out=tmp_path, device="gpu")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        train(small(), out=tmp_path / "file")


def test_a_second_interrupt_is_immediate() -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == "SIGINT"
        os.kill(os.getpid(), signal.SIGINT)
