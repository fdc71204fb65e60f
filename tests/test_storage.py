"""Storage against torn, altered, foreign and hostile files."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from poise.storage import DamagedFile, read_safely, save_atomically, write_text_atomically


@pytest.fixture
def payload() -> dict:
    generator = torch.Generator().manual_seed(0)
    return {
        "weights": OrderedDict(a=torch.randn(40, 30, generator=generator), b=torch.arange(7, dtype=torch.int32)),
        "optimizer": {"state": {0: {"step": 3, "lr": 0.1}}, "groups": [{"params": [0, 1]}]},
        "names": ["cell", "платлет"],
        "nothing": None,
        "raw": b"\x00\x01",
        "flag": True,
        "pair": (1, 2.5),
        "bfloat": torch.ones(3, dtype=torch.bfloat16),
    }


def equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


def test_returns_what_was_stored(tmp_path: Path, payload: dict) -> None:
    save_atomically(tmp_path / "new" / "file.pt", payload)
    assert equal(read_safely(tmp_path / "new" / "file.pt"), payload)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["file.pt"], "no temporary file may remain"


def test_stays_an_ordinary_torch_file(tmp_path: Path, payload: dict) -> None:
    save_atomically(tmp_path / "file.pt", payload)
    assert equal(torch.load(tmp_path / "file.pt", weights_only=True), payload)


@pytest.mark.parametrize("seed", range(20))
def test_truncated_anywhere_is_refused(tmp_path: Path, payload: dict, seed: int) -> None:
    path = tmp_path / "file.pt"
    save_atomically(path, payload)
    content = path.read_bytes()
    path.write_bytes(content[: random.Random(seed).randrange(len(content))])
    with pytest.raises(DamagedFile, match="file.pt"):
        read_safely(path)


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 21, -1, -2, -64, -77, -78, -99])
def test_truncated_at_the_edges_is_refused(tmp_path: Path, payload: dict, cut: int) -> None:
    path = tmp_path / "file.pt"
    save_atomically(path, payload)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DamagedFile):
        read_safely(path)


@pytest.mark.parametrize("seed", range(30))
def test_one_flipped_bit_is_refused(tmp_path: Path, payload: dict, seed: int) -> None:
    path = tmp_path / "file.pt"
    save_atomically(path, payload)
    content = bytearray(path.read_bytes())
    generator = random.Random(seed)
    content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.write_bytes(bytes(content))
    with pytest.raises(DamagedFile):
        read_safely(path)


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("writer", ["pickle", "torch", "sealed"])
def test_hostile_pickles_are_never_executed(tmp_path: Path, writer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, target = tmp_path / "file.pt", tmp_path / "executed"
    if writer == "pickle":
        path.write_bytes(pickle.dumps({"weights": Bomb(target)}))
    elif writer == "torch":
        torch.save({"weights": Bomb(target)}, path)
    else:  # an attacker who knows the format gives the checksum too
        monkeypatch.setattr("poise.storage.writing._check_plain", lambda value, where: None)
        save_atomically(path, {"weights": Bomb(target)})
    with pytest.raises(DamagedFile):
        read_safely(path)
    assert not target.exists()


def test_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_safely(tmp_path / "none.pt")


def test_what_cannot_be_read_back_is_not_written(tmp_path: Path, payload: dict) -> None:
    path = tmp_path / "file.pt"
    save_atomically(path, payload)
    with pytest.raises(TypeError, match=r"\['names'\]\[1\] is a set"):
        save_atomically(path, {"names": ["a", {1}]})
    assert equal(read_safely(path), payload)


def test_a_failing_write_leaves_the_old_file(tmp_path: Path, payload: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.pt"
    save_atomically(path, payload)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        save_atomically(path, {"other": 1})
    assert equal(read_safely(path), payload)
    assert [p.name for p in tmp_path.iterdir()] == ["file.pt"]


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be synchronized")
@pytest.mark.parametrize("keep", [False, True])
def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_end(
    tmp_path: Path, payload: dict, keep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename may reach the disk before the content of the file: after a power cut the file would be empty."""
    path, events = tmp_path / "last.pt", []
    save_atomically(path, payload)
    fsync, replace = os.fsync, os.replace

    def record_fsync(handle: int) -> None:
        events.append(("fsync", os.fstat(handle).st_ino))
        fsync(handle)

    def record_replace(source: Path, target: Path) -> None:
        events.append(("replace", os.stat(source).st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    save_atomically(path, payload, tmp_path / "previous.pt" if keep else None)
    written, folder = path.stat().st_ino, tmp_path.stat().st_ino
    renamed = events.index(("replace", written))
    assert ("fsync", written) in events[:renamed]
    assert events[renamed + 1] == ("fsync", folder) and events[-1] == ("fsync", folder)


def test_text_is_replaced_whole(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "a.csv", "one\n")
    write_text_atomically(tmp_path / "a.csv", "two\n")
    assert (tmp_path / "a.csv").read_text() == "two\n"
    assert len(list(tmp_path.iterdir())) == 1


WRITER = """
import sys, torch
from poise.storage import save_atomically
torch.set_num_threads(1)
step = 0
while True:
    save_atomically(sys.argv[1], {"step": step, "value": torch.full((200_000,), float(step))})
    step += 1
    print(step, flush=True)
"""


def test_a_process_killed_while_saving_leaves_a_whole_file(tmp_path: Path) -> None:
    generator = random.Random(1)
    path = tmp_path / "file.pt"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    time.sleep(generator.random() * 0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    payload = read_safely(path)
    assert payload["step"] >= 2 and (payload["value"] == payload["step"]).all()
