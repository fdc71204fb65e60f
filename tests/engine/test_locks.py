"""One run a folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from poise.engine.locks import FolderInUse, locked

HOLDER = """
import sys, time
from pathlib import Path
from poise.engine.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process  # type: ignore[misc]
    process.kill()
    process.communicate()


def test_a_living_run_keeps_others_out(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(FolderInUse, match=f"in use by process {holder.pid}"), locked(tmp_path):
        pass
    assert (tmp_path / "run.lock").exists(), "the refused one must not take the lock away"


def test_a_killed_run_does_not(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    (tmp_path / ".last.pt.abc.part").write_bytes(b"torn")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with locked(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()
        assert not list(tmp_path.glob(".*.part"))
    assert not (tmp_path / "run.lock").exists()


def test_another_process_with_the_same_number_does_not(tmp_path: Path) -> None:
    """The number of a dead run was given to someone else, here to this very process."""
    lock = {"pid": os.getpid(), "host": socket.gethostname(), "started": "1"}
    (tmp_path / "run.lock").write_text(json.dumps(lock))
    with locked(tmp_path):
        pass


def test_another_computer_is_believed_to_live(tmp_path: Path) -> None:
    (tmp_path / "run.lock").write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": "1"}))
    with (
        pytest.raises(FolderInUse, match="process 1 on elsewhere; if that run is dead, delete run.lock"),
        locked(tmp_path),
    ):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"pid": "x", "host": "y"}'])
def test_a_torn_lock_is_taken_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.lock").write_text(content)
    with locked(tmp_path):
        pass
