"""Co-DETR's measurements on the command line: their files, numbers and refusals."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from poise.cli import main
from poise.models import create_model
from poise.models.files import save_model

SMALL: dict[str, Any] = {"channels": 16, "attention_heads": 2, "hidden": 32, "queries": 20, "encoder_layers": 1}
SMALL |= {"decoder_layers": 2, "max_auxiliary_queries": 20, "backbone": "mobilenetv3_small_100", "image_size": 96}
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def models(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Untrained model files: a Co-DETR without and with heads, and another state of the latter."""
    folder, found = tmp_path_factory.mktemp("models"), {}
    names = [one["name"] for one in json.loads(next(demo_data.rglob("*val*.json")).read_text())["categories"]]
    for stem, heads, seed in (("plain", "", 0), ("first", "faster_rcnn,atss", 0), ("second", "faster_rcnn,atss", 1)):
        torch.manual_seed(seed)
        model = create_model("co_deformable_detr_r18", num_classes=len(names), auxiliary_heads=heads, **SMALL)
        model.set_classes(names, range(1, len(names) + 1))
        save_model(model, folder / f"{stem}.pt")
        found[stem] = str(folder / f"{stem}.pt")
    return found


def run(command: str, models: list[str], data: Path, out: Path, *more: str) -> tuple[int, dict[str, Any]]:
    words = ["lab", command, *models, "--data", str(data), "--split", "val", "--device", "cpu", "--out", str(out)]
    code = main([*words, "--images", "2", "--examples", "1", *more])
    return code, json.loads((out / f"{command}.json").read_text()) if code == 0 else {}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def figures(out: Path) -> set[str]:
    assert all(path.read_bytes().startswith(PNG) for path in out.glob("*.png"))
    return {path.stem for path in out.glob("*.png")}


@pytest.mark.parametrize("command", ["discriminability", "attention"])
def test_curves_of_several_models(command: str, models: dict[str, str], demo_data: Path, tmp_path: Path) -> None:
    code, numbers = run(command, [models["plain"], models["first"]], demo_data, tmp_path)
    assert code == 0 and figures(tmp_path) == {command, f"{command}-maps"}
    assert len(numbers["models"]) == 2
    curve = rows_of(tmp_path / f"{command}.csv")
    for name, one in numbers["models"].items():
        own = [row for row in curve if row["model"] == name]
        assert len(own) == 331 and [float(row["iof"]) for row in own] == one["curves"]["pooled"]["iof"]
        assert one["curves"]["pooled"]["iof"] == sorted(one["curves"]["pooled"]["iof"], reverse=True)
        assert one["curves"]["pooled"]["iob"] == sorted(one["curves"]["pooled"]["iob"])
    assert len(rows_of(tmp_path / f"{command}-images.csv")) == sum(one["images"] for one in numbers["models"].values())


def test_discriminability_of_a_dense_detector(trained: Path, demo_data: Path, tmp_path: Path) -> None:
    code, numbers = run("discriminability", [str(trained)], demo_data, tmp_path, "--features", "backbone")
    assert code == 0 and 0 < numbers["models"]["atss_r18_fpn, tiny"]["contrast"] < 1


def test_folders_of_ablations_give_models_their_names(models: dict[str, str], demo_data: Path, tmp_path: Path) -> None:
    for name in ("K=0-plain", "K=1-ATSS"):
        (tmp_path / name / "seed-0").mkdir(parents=True)
        (tmp_path / name / "seed-0" / "best.pt").write_bytes(Path(models["first"]).read_bytes())
    words = [str(tmp_path / name / "seed-0") for name in ("K=0-plain", "K=1-ATSS")]
    code, numbers = run("discriminability", words, demo_data, tmp_path / "lab")
    assert code == 0
    assert [name.split(", ")[1] for name in numbers["models"]] == ["K=0-plain/seed-0", "K=1-ATSS/seed-0"]


def test_instability_of_two_trainings(models: dict[str, str], demo_data: Path, tmp_path: Path) -> None:
    words = [models["first"], models["second"], "vs", models["first"], models["first"]]
    code, numbers = run("instability", words, demo_data, tmp_path)
    assert code == 0 and figures(tmp_path) == {"instability"}
    moved = {(one["before"], one["stage"]): one["instability"] for one in numbers["steps"]}
    first = next(before for before, _ in moved)
    assert moved[first, "queries"] > 0 and moved[f"{first} (2)", "queries"] == 0
    assert len(rows_of(tmp_path / "instability.csv")) == sum(one["images"] for one in numbers["steps"])


def test_distances_between_heads(models: dict[str, str], demo_data: Path, tmp_path: Path) -> None:
    code, numbers = run("distances", [models["first"]], demo_data, tmp_path)
    assert code == 0 and figures(tmp_path) == {"distances", "distances-maps"}
    (one,) = numbers["models"].values()
    assert one["heads"] == ["decoder", "faster_rcnn", "atss"] and set(one["distance"]) == set(one["heads"])
    assert len(rows_of(tmp_path / "distances.csv")) == 6


def test_query_centers(models: dict[str, str], demo_data: Path, tmp_path: Path) -> None:
    code, numbers = run("queries", [models["plain"], models["first"]], demo_data, tmp_path)
    assert code == 0 and figures(tmp_path) == {"queries"}
    plain, lending = numbers["models"].values()
    assert plain["distance"] == {} and set(lending["distance"]) == {"faster_rcnn", "atss"}
    assert len(next(iter(numbers["queries"].values()))) == 2


def test_refusals(
    models: dict[str, str], trained: Path, demo_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, words, more, wanted in (
        ("attention", [str(trained)], [], "poise lab discriminability"),
        ("queries", [str(trained)], [], "DETR family"),
        ("distances", [models["plain"]], [], "two heads over the same features"),
        ("instability", [models["first"], str(trained)], [], "have no priors in common"),
        ("attention", [models["first"]], ["--layer", "9"], "has 2 layers"),
    ):
        assert run(command, words, demo_data, tmp_path, *more)[0] == 1
        assert wanted in capsys.readouterr().err
    assert main(["lab", "instability", models["first"], "--data", str(demo_data)]) == 2
    assert "two or more states" in capsys.readouterr().err
    assert main(["lab", "discriminabilty", models["first"], "--data", str(demo_data)]) == 2
    assert "did you mean 'discriminability'" in capsys.readouterr().err
