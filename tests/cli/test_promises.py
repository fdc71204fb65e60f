"""What holds of every command: data folders are only read, nothing asks the network, pages show names as text."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.utils
import pytest
import timm
from support.browser import Browser, find_browser
from support.tiny import TINY_MODEL
from support.write_data import write_yolo

from poise.cli import main
from poise.cli.page import write_page
from poise.data import open_data
from poise.storage import write_text_atomically

EVIL = "<img src=x onerror=document.title='hit'>"


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every name with its size, time of change and mode."""
    paths = [folder, *sorted(folder.rglob("*"))]
    facts = {str(path.relative_to(folder)): path.lstat() for path in paths}
    return {name: (stat.st_size, stat.st_mtime_ns, stat.st_mode) for name, stat in facts.items()}


def every_command(model: Path, data: Path, out: Path) -> dict[str, list[str]]:
    on = ["--data", str(data), "--split", "val", "--device", "cpu"]
    train = ["train", "atss_r18_fpn", "--data", str(data), "--epochs", "1", "--batch-size", "4", "--workers", "1"]
    return {
        "check": ["check", str(data)],
        "train": [*train, "--out", str(out / "run"), "--device", "cpu", *TINY_MODEL],
        "eval": ["eval", str(model), *on, "--save-json", str(out / "found.json")],
        "predict": ["predict", str(model), str(data / "val"), "--out", str(out / "seen"), "--device", "cpu"],
        "lab": ["lab", "show", str(model), *on, "--images", "1", "--out", str(out / "page.html")],
    }


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No name is looked up and no connection made; who tried is in the list."""
    tried: list[str] = []

    def refuse(*arguments: object, **more: object) -> None:
        tried.append(repr(arguments[:2]))
        raise OSError("the network is off")

    def refuse_abroad(name: str) -> Callable[..., object]:
        original = getattr(socket.socket, name)

        def method(self: socket.socket, *arguments: object) -> object:
            local = self.family == getattr(socket, "AF_UNIX", None)  # data workers pass their pictures on so
            return original(self, *arguments) if local else refuse(*arguments)

        return method

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse_abroad(name))
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    with pytest.raises(OSError, match="network is off"):
        socket.create_connection(("127.0.0.1", 9))
    tried.clear()
    return tried


def test_every_command_only_reads_the_data_and_never_asks_the_network(
    trained: Path, demo_data: Path, tmp_path: Path, offline: list[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(demo_data, data)
    before = snapshot(data)
    for name, words in every_command(trained, data, tmp_path).items():
        assert main(words) == 0, name
        assert snapshot(data) == before, f"{name} wrote into the data folder"
        assert not offline, f"{name} used the network: {offline}"


def test_weights_are_fetched_only_where_the_recipe_says_so(
    demo_data: Path,
    tmp_path: Path,
    offline: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``--model.backbone-weights imagenet`` is the word; without a network it is an error that names the way out."""
    words = ["train", "atss_r18_fpn", "--data", str(demo_data), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*words, "--model.backbone-weights", str(tmp_path / "none.pth")]) == 1
    assert "no such file" in capsys.readouterr().err and not offline
    create, fetched = timm.create_model, []

    def fetching(name: str, *arguments: object, pretrained: bool = False, **more: object) -> object:
        if pretrained:
            fetched.append(name)
            assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY
            assert "torch" not in huggingface_hub.utils.build_hf_headers()["user-agent"], "only the client names itself"
            raise OSError("the network is off")
        return create(name, *arguments, pretrained=pretrained, **more)

    addresses: list[str] = []
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda address, **_: addresses.append(address))
    monkeypatch.setattr(timm, "create_model", fetching)
    assert main([*words, "--model.backbone-weights", "imagenet"]) == 1
    assert len(addresses) <= 1 and all("/timm/resnet18.tv_in1k/" in address for address in addresses)
    assert fetched == ["resnet18.tv_in1k"] and "or 'none'" in capsys.readouterr().err


@pytest.fixture
def evil_data(demo_data: Path, tmp_path: Path) -> Path:
    """A class and a file whose names are HTML."""
    root = tmp_path / "data"
    shutil.copytree(demo_data, root)
    for file in (root / "annotations").glob("*.json"):
        content = json.loads(file.read_text())
        content["categories"][0]["name"] = EVIL
        image, folder = content["images"][0], "train" if "train" in file.name else "val"
        name = f"{EVIL}{Path(image['file_name']).suffix}"
        (root / folder / image["file_name"]).rename(root / folder / name)
        image["file_name"] = name
        file.write_text(json.dumps(content))
    return root


def test_the_report_shows_names_of_classes_and_runs_as_text(evil_data: Path, tmp_path: Path) -> None:
    """In a real browser: the image that would tell of the attack is not even made."""
    find_browser()
    run = tmp_path / f"run {EVIL.replace('/', '')}"
    words = ["train", "atss_r18_fpn", "--data", str(evil_data), "--epochs", "1", "--batch-size", "4", "--workers", "0"]
    assert main([*words, "--out", str(run), "--device", "cpu", *TINY_MODEL]) == 0
    names = open_data(evil_data, "val").class_names
    assert EVIL in names and (run / "classes.txt").read_text().splitlines()[names.index(EVIL)] == EVIL
    recipe = (run / "recipe.yaml").read_text()
    write_text_atomically(run / "recipe.yaml", f"{recipe}# {EVIL}\n")
    page = write_page(run)
    shutil.copy(page, tmp_path / "report.html")
    with Browser(tmp_path / "profile") as browser:
        browser.open(tmp_path / "report.html")
        browser.wait_for("document.readyState === 'complete'")
        assert "hit" != browser.run("document.title") and EVIL in browser.run("document.title")
        assert browser.run("document.querySelectorAll('img[onerror]').length") == 0
        assert browser.run("document.querySelectorAll('script').length") == 0
        assert EVIL in browser.run("document.querySelector('table').innerText")
        assert EVIL in browser.run("document.querySelector('pre').innerText")
        light = browser.run("getComputedStyle(document.body).backgroundColor")
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        assert browser.run("getComputedStyle(document.body).backgroundColor") != light
        browser.call("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=True)
        browser.wait_for("innerWidth === 400")
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        halves = "[...document.querySelectorAll('#val_0 .half')].map((one) => one.getBoundingClientRect().top)"
        truth, detections = browser.run(halves)
        assert truth < detections  # one above the other
        browser.run("location.hash = '#confidence'")  # what a click on the picture does
        browser.wait_for("getComputedStyle(document.getElementById('confidence')).position === 'fixed'")
        assert not browser.complaints


def test_names_that_are_not_utf8_go_through(
    trained: Path, demo_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Linux allows any bytes in a name: they come out of ``detections.json`` as they are on the disk."""
    name = os.fsdecode(b"caf\xe9.jpg")
    try:
        shutil.copy(next((demo_data / "val").iterdir()), tmp_path / name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    words = ["predict", str(trained), str(tmp_path / name), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(words) == 0
    records = json.loads((tmp_path / "out" / "detections.json").read_text(encoding="utf-8"))
    assert os.fsencode(records[0]["path"]).endswith(b"caf\xe9.jpg")
    assert (tmp_path / "out" / name).is_file()
    data = write_yolo(tmp_path / "data", {"a": "0 0.5 0.5 0.2 0.2", name[:-4]: "9 0.5 0.5 0.2 0.2"}, "[disc, star]")
    capsys.readouterr()
    assert main(["check", str(data)]) == 3
    assert "caf\\udce9.txt line 1" in capsys.readouterr().out
    (data / "labels" / "train" / f"{name[:-4]}.txt").write_text("1 0.5 0.5 0.2 0.2")
    on = ["--data", str(data), "--split", "train", "--device", "cpu"]
    for number, words in enumerate((["lab", "show"], ["lab", "stats"])):
        assert main([*words, str(trained), *on, "--out", str(tmp_path / f"{number}.html")]) == 0
