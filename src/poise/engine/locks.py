"""One run per folder: a lock file names the process that writes there; the lock of a dead process is replaced."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from poise.storage import write_text_atomically

NAME = "run.lock"
_QUERY, _STILL_ACTIVE = 0x1000, 259  # PROCESS_QUERY_LIMITED_INFORMATION; the exit code of what still runs


class FolderInUse(ValueError):
    """Another run writes to this folder."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder; temporary files of a process that was killed are removed.

    Raises:
        FolderInUse: a running process has locked it, or a process of another host, which cannot be checked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    with _one_at_a_time(folder):
        _refuse_living(path)
        write_text_atomically(path, json.dumps(identity(os.getpid())))
        remove_partial_files(folder)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def remove_partial_files(folder: Path) -> None:
    """Remove the temporary files of a process that was killed while writing."""
    for partial in folder.glob(".*.part"):
        partial.unlink(missing_ok=True)


def _refuse_living(path: Path) -> None:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        pid, host = int(holder["pid"]), str(holder["host"])
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):  # incomplete after a crash of the computer: its writer is gone
        return
    if host != socket.gethostname():
        raise FolderInUse(
            f"{path.parent} is in use by process {pid} on {host}; if that run is dead, delete {path.name} there"
        )
    if holder == identity(pid) and holder["started"]:
        raise FolderInUse(f"{path.parent} is in use by process {pid}; choose another --out or stop that run first")


def identity(pid: int) -> dict[str, object]:
    """Identify a process, also against a later one with the same id; ``started`` is empty if it does not run."""
    return {"pid": pid, "host": socket.gethostname(), "started": _start_time(pid)}


def _start_time(pid: int) -> str:
    if sys.platform == "win32":
        return _start_time_on_windows(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        state, *rest = stat.rpartition(")")[2].split()
        return "" if state == "Z" else rest[18]  # field 22, in ticks since the computer started; a zombie is dead
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
    with contextlib.suppress(OSError):  # systems without /proc
        return subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return ""


def _start_time_on_windows(pid: int) -> str:
    """Return the creation time of a running process, from ``GetProcessTimes``."""
    import ctypes

    kernel: Any = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined, unused-ignore]
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(kernel.OpenProcess(_QUERY, False, pid))
    if not handle.value:
        return ""
    created, exited, of_kernel, of_user = (ctypes.c_uint64() for _ in range(4))
    times = (ctypes.byref(time) for time in (created, exited, of_kernel, of_user))
    known = kernel.GetProcessTimes(handle, *times)
    code = ctypes.c_ulong()
    alive = kernel.GetExitCodeProcess(handle, ctypes.byref(code)) and code.value == _STILL_ACTIVE
    kernel.CloseHandle(handle)
    return str(created.value) if known and alive else ""


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process at a time replace a dead lock (where the system has ``flock``)."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot lock
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
