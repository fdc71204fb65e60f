"""Saving against kills, a full disk and a folder that cannot be written: never without a good checkpoint."""

from __future__ import annotations

import errno
import os
import random
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import tiny_training

from benchmarks.kill_saves import kill_many
from poise.engine.checkpoints import read_last, save_last
from poise.storage import read_safely, save_atomically


def payload(step: int) -> dict[str, object]:
    return {"step": step, "value": torch.full((100_000,), float(step))}


def steps(folder: Path) -> dict[str, int]:
    return {path.name: read_safely(path)["step"] for path in sorted(folder.glob("*.pt"))}


def test_a_few_kills_during_saves(tmp_path: Path) -> None:
    """The short form of ``benchmarks/kill_saves.py``."""
    found = kill_many(tmp_path, 12, 1 << 18, random.Random(0))
    assert found["kills"] == 12 and found["inside a save"] >= 1
    assert found["lost"] == 0


def test_the_older_checkpoint_goes_only_when_the_new_one_is_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every rename and link of a save two whole checkpoints are there, also where ``last.pt`` is damaged."""
    for step in (1, 2):
        save_last(tmp_path, payload(step))
    assert steps(tmp_path) == {"last.pt": 2, "previous.pt": 1}
    (tmp_path / "last.pt").write_bytes(b"damaged")
    replace, seen = os.replace, []

    def watched(source: Path, target: Path) -> None:
        seen.append(read_last(tmp_path)[0]["step"])
        replace(source, target)
        seen.append(read_last(tmp_path)[0]["step"])

    monkeypatch.setattr(os, "replace", watched)
    save_last(tmp_path, payload(3))
    assert seen == [1, 3, 3, 3], "a good one at every moment"
    assert not list(tmp_path.glob(".*"))


def in_a_process(work: Callable[[], None]) -> str:
    """What ``work`` raised in a forked process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading) as file:
        return file.read()


def test_a_full_disk_leaves_both_checkpoints_and_says_so(tmp_path: Path) -> None:
    """The limit of a file's size stands for the disk's: the same error of the system comes out of the same call."""
    for step in (1, 2):
        save_last(tmp_path, payload(step))

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        save_last(tmp_path, payload(3))

    output = in_a_process(fill)
    assert output.startswith("OSError: ") and "while it was written" in output and str(tmp_path / "last.pt") in output
    assert "what was there before is unharmed" in output
    assert steps(tmp_path) == {"last.pt": 2, "previous.pt": 1} and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("left", [50, 5_000])
def test_a_disk_that_fills_up_at_any_byte(tmp_path: Path, left: int) -> None:
    """Small writes wait in a buffer: the error then comes when it is written out."""
    save_atomically(tmp_path / "a.pt", {"old": True})

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (left, left))
        save_atomically(tmp_path / "a.pt", {"value": torch.zeros(3000)})

    assert in_a_process(fill).startswith("OSError: ")
    assert read_safely(tmp_path / "a.pt") == {"old": True} and [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def refuse(number: int) -> Callable[..., None]:
    def refusing(*arguments: object, **more: object) -> None:
        raise OSError(number, os.strerror(number), "somewhere")

    return refusing


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Injected where the first file would be made: for the superuser no folder is read-only."""
    save_last(tmp_path, payload(1))
    monkeypatch.setattr(tempfile, "mkstemp", refuse(number))
    with pytest.raises(OSError, match="while it was written") as caught:
        save_last(tmp_path, payload(2))
    assert caught.value.errno == number and caught.value.filename == str(tmp_path / "last.pt")
    assert steps(tmp_path) == {"last.pt": 1}


def test_a_training_whose_disk_is_full_ends_with_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = tiny_training.tiny_training(tmp_path, tiny_training.tiny_recipe())
    saves = iter(range(100))
    make = tempfile.mkstemp

    def filling(*arguments: object, **more: object) -> object:
        if "last.pt" in str(more.get("prefix")) and next(saves) == 2:
            refuse(errno.ENOSPC)()
        return make(*arguments, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(tempfile, "mkstemp", filling)
    with pytest.raises(OSError, match="No space left on device while it was written") as caught:
        training.run()
    assert caught.value.filename == str(tmp_path / "last.pt")
    assert read_last(tmp_path)[0]["training"]["step"] > 0
