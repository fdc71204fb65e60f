"""Windows and macOS, as far as Linux can show it: names as they are written there, and systems that lack a call."""

from __future__ import annotations

import ast
import ctypes
import json
import os
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.sources import python_files, short, tree
from support.write_data import coco_content, picture, write_coco, write_yolo

from poise.cli.predict import FreeNames
from poise.data import BadData, open_data
from poise.data.files import FileIndex
from poise.engine.locks import FolderInUse, _start_time_on_windows, identity, locked
from poise.storage import read_safely, save_atomically, sync_folder

POSIX_ONLY = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "readline", "syslog"}
POSIX_CALLS = {
    "os.fork", "os.getuid", "os.geteuid", "os.kill", "os.killpg", "os.setsid", "os.mkfifo", "os.symlink",
    "os.waitpid", "os.uname", "signal.SIGKILL", "signal.alarm", "signal.setitimer", "os.sched_getaffinity",
}  # fmt: skip


def named(root: Path, name: str, on_disk: str = "") -> Path:
    """A COCO data set whose first image the annotations call ``name``."""
    content = coco_content()
    content["images"][0]["file_name"] = name
    picture(root / "train" / (on_disk or name.replace("\\", "/")))
    picture(root / "train" / "11.png")
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return root


def test_backslashes_of_windows_are_folders(tmp_path: Path) -> None:
    images = open_data(named(tmp_path, "part\\deep\\10.png"), "train")
    assert images[0].path == tmp_path / "train" / "part" / "deep" / "10.png"


def test_backslashes_in_yolo(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": "0 0.5 0.5 0.2 0.2"})
    (tmp_path / "list.txt").write_text("images\\train\\a.png\r\n")
    (tmp_path / "data.yaml").write_text("train: list.txt\r\nval: images\\train\r\nnames: [cat]\r\n")
    for split in ("train", "val"):
        images = open_data(tmp_path, split)
        assert (len(images), images.num_objects) == (1, 1)


@pytest.mark.parametrize(
    "name", ["C:\\data\\10.png", "C:/data/10.png", "\\\\host\\share\\10.png", "//host/share/10.png"]
)
def test_drives_and_other_computers_are_never_left_for(tmp_path: Path, name: str) -> None:
    """Annotations made on Windows often hold full paths: the file of that name in the data set is taken, or none."""
    content = coco_content()
    write_coco(tmp_path, content)
    content["images"][0]["file_name"] = name
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    assert [record.path.name for record in open_data(tmp_path, "train")] == ["10.png", "11.png"]
    (tmp_path / "train" / "10.png").unlink()
    with pytest.raises(BadData, match="image-(missing|outside-root)"):
        open_data(tmp_path, "train")


def test_another_computer_is_not_even_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows looking at ``\\\\host\\x`` would send that host the user's credentials."""
    index = FileIndex(tmp_path)
    monkeypatch.setattr(Path, "resolve", lambda self, strict=False: pytest.fail(f"looked at {self}"))
    monkeypatch.setattr(os.path, "isfile", lambda path: pytest.fail(f"looked at {path}"))
    assert index.state("//host/share/x.png") == index.state("\\\\host\\share\\x.png") == "outside"


@pytest.mark.parametrize(
    ("written", "on_disk"),
    [("Photo.PNG", "photo.png"), (unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png"))],
)
def test_names_that_differ_in_case_or_accents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, on_disk: str
) -> None:
    """Two names on Linux, where the message names the other; one name where the file system says so."""
    root = named(tmp_path, written, on_disk)
    with pytest.raises(BadData, match=rf"image-missing: train/{written} .*there is '{on_disk}'"):
        open_data(root, "train")
    isfile, folded = os.path.isfile, str(root / "train" / written)
    monkeypatch.setattr(os.path, "isfile", lambda path: str(path) == folded or isfile(path))
    images = open_data(root, "train", on_bad_data="skip")
    assert len(images) == 2 and not images.skipped


@pytest.mark.parametrize("name", ["CON", "nul.png", "aux.jpg", "a:b.png", "a\0b.png", "x" * 300 + ".png", "trailing. "])
def test_names_that_some_systems_refuse(tmp_path: Path, name: str) -> None:
    """They are looked for in the folder's listing, not opened: ``CON`` never is the console."""
    assert FileIndex(tmp_path).state(name) == FileIndex(tmp_path).state(f"train/{name}") == "missing"


def test_pictures_whose_names_differ_in_case_do_not_meet(tmp_path: Path) -> None:
    names = FreeNames(tmp_path)
    assert [names.path(name).name for name in ("a.jpg", "A.jpg", "Detections.json")] == [
        "a.jpg",
        "A-2.jpg",
        "Detections-2.json",
    ]


def test_a_long_name_is_written(tmp_path: Path) -> None:
    """The temporary file's name is shorter than the file's own where that takes all 255 bytes."""
    path = tmp_path / ("n" * 252 + ".pt")
    save_atomically(path, {"a": 1})
    assert read_safely(path) == {"a": 1}


def test_windows_cannot_sync_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poise.storage.writing.os", SimpleNamespace(name="nt", open=lambda *_: pytest.fail("opened")))
    sync_folder(tmp_path)


def test_file_systems_without_hard_links_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    for step in (1, 2):
        save_atomically(tmp_path / "last.pt", {"step": step}, tmp_path / "previous.pt")
    assert (read_safely(tmp_path / "previous.pt"), read_safely(tmp_path / "last.pt")) == ({"step": 1}, {"step": 2})


def test_a_lock_without_flock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with locked(tmp_path), pytest.raises(FolderInUse), locked(tmp_path):
        pass


class Kernel(SimpleNamespace):
    """What poise asks of Windows about processes; process 7 lives since 123, process 8 has ended, 9 never was."""

    def __init__(self, name: str) -> None:
        def open_process(rights: int, inherit: bool, pid: int) -> int:
            return pid if pid in (7, 8) else 0

        super().__init__(OpenProcess=open_process)

    def GetProcessTimes(self, handle: ctypes.c_void_p, created: object, *others: object) -> int:
        created._obj.value = 123  # type: ignore[attr-defined]
        return 1

    def GetExitCodeProcess(self, handle: ctypes.c_void_p, code: object) -> int:
        code._obj.value = 259 if handle.value == 7 else 0  # type: ignore[attr-defined]
        return 1

    def CloseHandle(self, handle: ctypes.c_void_p) -> int:
        return 1


def test_the_lock_of_a_dead_process_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in for kernel32: a run that was killed there can be resumed."""
    monkeypatch.setattr(ctypes, "WinDLL", Kernel, raising=False)
    assert [_start_time_on_windows(pid) for pid in (7, 8, 9)] == ["123", "", ""]
    monkeypatch.setattr(sys, "platform", "win32")
    for pid, free in ((7, False), (8, True), (9, True)):
        (tmp_path / "run.lock").write_text(json.dumps({**identity(pid), "started": "123"}))
        if free:
            with locked(tmp_path):
                pass
        else:
            with pytest.raises(FolderInUse, match="process 7"), locked(tmp_path):
                pass


def test_calls_that_only_posix_has_are_guarded() -> None:
    """Modules that Windows lacks are imported within functions; calls that it lacks are not made at all."""
    for path in python_files():
        content = tree(path)
        at_the_top = {name.name for node in content.body if isinstance(node, ast.Import) for name in node.names} | {
            node.module for node in content.body if isinstance(node, ast.ImportFrom)
        }
        assert not at_the_top & POSIX_ONLY, short(path)
        used = {ast.unparse(node) for node in ast.walk(content) if isinstance(node, ast.Attribute)}
        assert not used & POSIX_CALLS, short(path)
