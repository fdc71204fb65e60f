"""``poise lab``: pages, statistics and errors of the command line."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from poise.cli import main
from poise.data import open_data


def test_show_writes_one_page_that_holds_everything(trained: Path, demo_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "folder" / "page.html"
    words = [
        "lab",
        "show",
        str(trained),
        "--data",
        str(demo_data),
        "--split",
        "val",
        "--images",
        "2",
        "--device",
        "cpu",
    ]
    assert main([*words, "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert text.count('id="image-') == 2
    assert not re.search(r'(?:src|href)\s*=\s*"?(?!data:)\w+:', text) and "http://www.w3.org/2000/svg" in text
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])  # type: ignore[index]
    assert data["methods"] == ["atss_r18_fpn, tiny"] and data["stages"][0]["images"] == 2


def test_a_page_stays_within_its_size(
    trained: Path, demo_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    words = ["lab", "show", str(trained), "--data", str(demo_data), "--device", "cpu"]  # of train and val, val
    assert main([*words, "--max-megabytes", "0.01", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "1 image," in printed and "3 more images are in the statistics but not on the page" in printed


def test_stats_writes_numbers_and_figures(trained: Path, demo_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "numbers"
    words = [
        "lab",
        "stats",
        str(trained),
        "task_aligned",
        "--data",
        str(demo_data),
        "--split",
        "val",
        "--device",
        "cpu",
    ]
    assert main([*words, "--out", str(out)]) == 0
    numbers = json.loads((out / "stats.json").read_text())
    assert [one["method"] for one in numbers["stages"]] == ["atss_r18_fpn, tiny", "task_aligned"]
    assert numbers["stages"][0]["images"] == 4
    assert numbers["agreement"]["dense"][0]["positive_jaccard"] < 1
    with (out / "objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(one["objects"] for one in numbers["stages"])
    assert (out / "dense.png").read_bytes().startswith(b"\x89PNG")
    with (out / "stats.csv").open() as file:
        table = {(row["method"], row["name"]): row["value"] for row in csv.DictReader(file)}
    small = numbers["stages"][1]["by_size"]["small"]["weight_fraction"]
    assert float(table["task_aligned", "by_size.small.weight_fraction"]) == small
    assert len([name for _, name in table if name.startswith("weight_histograms.positive.")]) == 2 * 40


def test_the_only_split_is_used_and_named(
    trained: Path, demo_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lab and the evaluation use the split that a training validates on."""
    shutil.copytree(demo_data, tmp_path / "data")
    for file in (tmp_path / "data").rglob("*.json"):
        if "train" not in file.name:
            file.unlink()
    words = [str(trained), "--data", str(tmp_path / "data"), "--device", "cpu"]
    assert main(["lab", "show", *words, "--images", "1", "--out", str(tmp_path / "page.html")]) == 0
    assert "using the only split 'train'" in capsys.readouterr().out
    assert main(["eval", *words]) == 0
    assert "using the only split 'train'" in capsys.readouterr().err
    assert main(["eval", *words, "--split", "val"]) == 1
    assert "it has train" in capsys.readouterr().err


def test_the_images_that_a_training_held_out_are_used(
    trained: Path, demo_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ``poise eval`` does, where the data has one split and the run was trained with ``data.val_share``."""
    shutil.copytree(demo_data, tmp_path / "data")
    for file in (tmp_path / "data").rglob("*.json"):
        if "train" not in file.name:
            file.unlink()
    names = [record.path.name for record in open_data(tmp_path / "data", "train")]
    runs = tmp_path / "one", tmp_path / "two"
    for run, held in zip(runs, (names[2:4], names[5:6]), strict=True):
        shutil.copytree(trained, run)
        (run / "val_images.txt").write_text("".join(f"{name}\n" for name in held))
    words = [str(runs[0]), "--data", str(tmp_path / "data"), "--device", "cpu"]
    out = ["--out", str(tmp_path / "page.html")]
    assert main(["lab", "show", *words, *out]) == 0
    assert "using the 2 images of split 'train' that the training held out" in capsys.readouterr().out
    data = json.loads(re.search(r'id="data">(.*?)</script>', (tmp_path / "page.html").read_text())[1])  # type: ignore[index]
    assert data["image_names"] == names[2:4]
    assert main(["eval", *words]) == 0
    assert "using the 2 images" in capsys.readouterr().err
    assert main(["lab", "compare", str(runs[1]), *words, *out]) == 0
    assert f"{runs[0]} held out other images than {runs[1]}" in capsys.readouterr().out
    assert main(["lab", "show", *words, *out, "--split", "train", "--images", "0"]) == 0
    assert "8 images, " in (text := capsys.readouterr().out) and "held out" not in text


def test_assign_works_out_one_assignment(
    trained: Path, demo_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(demo_data), "--out", str(tmp_path / "page.html")]
    tensors = tmp_path / "tensors.safetensors"
    assert main(["lab", "assign", str(trained), *data, "--image", "1", "--tensors", str(tensors)]) == 0
    text = capsys.readouterr().out
    assert "threshold of the object: mean + standard deviation" in text and "result of the assigner itself" in text
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page and not re.search(r'(?:src|href)\s*=\s*"?(?!data:)\w+:', page)
    found = load_file(tensors)
    assert main(["lab", "assign", str(trained), *data, "--image", "1", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["stage"] == "dense" and numbers["differences_from_assigner"] == 0
    steps = {one["name"]: one for one in numbers["tensors"]}
    assert steps["threshold"]["axes"] == ["M"] and steps["IoU"]["shape"] == list(found["IoU"].shape)
    assert numbers["assigned"] == found["assigned"].tolist() and max(numbers["assigned"]) < numbers["sizes"]["M"]
    swapped = ["--assigner", "sim_ota(topk=5)", "--image", numbers["image"], "--out", str(tmp_path / "figure.png")]
    assert main(["lab", "assign", str(trained), "--data", str(demo_data), *swapped]) == 0
    assert "SimOTA(topk=5" in capsys.readouterr().out
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--image", "4"], "has images 0 to 3"),
        (["--image", "x.jpg"], "no such file in split 'val'"),
        (["--object", "99"], "objects, from 0 on"),
        (["--stage", "guide"], "--stage guide does not exist; 'atss_r18_fpn' has dense"),
        (["--out", "page.pdf"], "the ending is .html"),
        (["--assigner", "hungarian"], "hungarian"),
    ],
)
def test_assign_refuses(
    words: list[str], reason: str, trained: Path, demo_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = complaint(["lab", "assign", str(trained), "--data", str(demo_data), *words], capsys)
    assert code in (1, 2) and reason in text


def complaint(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(words)
    return code, capsys.readouterr().err


def test_refusals(trained: Path, demo_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", str(demo_data), "--split", "val", "--device", "cpu"]
    code, text = complaint(["lab"], capsys)
    assert code == 2 and "show, compare, assign or stats" in text
    code, text = complaint(["lab", "shwo", str(trained), *data], capsys)
    assert code == 2 and "did you mean 'show'" in text
    code, text = complaint(["lab", "compare", str(trained), *data], capsys)
    assert code == 2 and "takes 2 to 12 models, but 1 is given" in text
    code, text = complaint(["lab", "compare", str(trained), "dual_weigting", *data], capsys)
    assert code == 1 and "no assigner 'dual_weigting', did you mean 'dual_weighting'" in text
    code, text = complaint(["lab", "compare", str(trained), "runs/atss", *data], capsys)
    assert code == 1 and "neither a model file nor a run folder nor a model's name" in text
    code, text = complaint(["lab", "show", "atss_r18_fnp", *data], capsys)
    assert code == 1 and "atss_r18_fpn" in text
