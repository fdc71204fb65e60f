"""Every kind of fault through ``check``, ``train``, ``eval`` and ``predict``: a message each, never a traceback."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from data.faulty_data import CASES, Case
from support.write_data import picture

from poise.cli import main
from poise.models import create_model
from poise.models.files import save_model

SMALL = "--model.options backbone test_byobnet channels 8 depth 1 --model.backbone-weights none --image-size 64".split()
TRAIN = ["train", "atss_r18_fpn", *SMALL, *"--epochs 1 --batch-size 2 --workers 0 --device cpu --data.val none".split()]
IDS = {"coco": (3, 7), "yolo": (0, 1), "voc": (1, 2)}
ON_DECODING = [case for case in CASES if case.effect == "image"]
ONE_OF_EACH = list({case.kind: case for case in ON_DECODING}.values())


def by_name(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.name.replace(" ", "-").replace("'", "") for case in cases])


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model for each format's category ids."""
    folder = tmp_path_factory.mktemp("models")
    for kind, ids in IDS.items():
        model = create_model("atss_r18_fpn", 2, image_size=32, backbone="test_byobnet", channels=8, depth=1)
        names = ("Dog", "cat") if kind == "voc" else ("cat", "Dog")
        model.set_classes(names, ids)
        save_model(model, folder / f"{kind}.pt")
    return {kind: folder / f"{kind}.pt" for kind in IDS}


@pytest.fixture
def data(case: Case, tmp_path: Path) -> Path:
    root = tmp_path / "data"
    case.write(root)
    return root


def fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a failing command says: a message, and no traceback."""
    capsys.readouterr()
    assert main(words) == 1
    output = capsys.readouterr().err
    assert output.startswith("poise: ") and "Traceback" not in output
    return output


def test_there_are_many_kinds() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 40
    assert len({case.kind for case in CASES}) >= 25


@by_name(CASES)
def test_check_finds_it(case: Case, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(data), "--json"]) == (0 if case.effect == "note" else 3)
    report = json.loads(capsys.readouterr().out)
    assert case.kind in [finding["kind"] for finding in report["findings"]]


@by_name(CASES)
def test_train_stops_with_its_name_or_goes_on(
    case: Case, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TRAIN, "--data", str(data), "--out", str(tmp_path / "run")]
    if case.effect == "note":
        assert main(words) == 0
        return
    output = fails(words, capsys)
    assert (case.kind if case.effect == "record" else "10.png" if case.effect == "image" else str(data)) in output
    assert not (tmp_path / "run" / "last.pt").exists()


@by_name(ONE_OF_EACH)
def test_train_goes_on_without_it_where_told_to(
    case: Case, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TRAIN, "--data", str(data), "--out", str(tmp_path / "run"), "--data.on-bad-data", "skip"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main(words) == 0
    assert "10.png" in "".join(str(one.message) for one in caught)
    assert (tmp_path / "run" / "last.pt").is_file()


@by_name(CASES)
def test_eval_stops_with_its_name_or_goes_on(
    case: Case, data: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", str(models[case.format]), "--data", str(data), "--split", "train", "--device", "cpu"]
    if case.effect == "note":
        assert main(words) == 0
        return
    output = fails(words, capsys)
    assert (case.kind if case.effect == "record" else "10.png" if case.effect == "image" else str(data)) in output
    skip = [*words, "--on-bad-data", "skip"]
    if case.effect == "record":
        assert main(skip) == 0
    else:
        fails(skip, capsys)  # an evaluation never leaves out an image by itself


@by_name(ON_DECODING)
def test_predict_stops_with_its_name_or_leaves_it_out(
    case: Case, data: Path, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if case.kind == "image-size-differs":  # nothing is annotated here
        return
    bad, good = data / "train" / "10.png", picture(tmp_path / "good.png")
    words = ["predict", str(models["coco"]), str(good), str(bad), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert "10.png" in fails(words, capsys)
    if bad.is_dir():  # a folder of images, as far as predict knows; it holds none
        return
    with pytest.warns(UserWarning, match="10.png"):
        assert main([*words, "--on-bad-image", "skip"]) == 0
    records = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [Path(record["path"]).name for record in records] == ["good.png"]
