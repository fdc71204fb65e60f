"""What every benchmark writes with ``--json FILE``: its rows with machine, versions, date and settings.

A row is a dictionary: ``case`` names it, numbers are measures. How a measure's name ends says what is better:

    _s, _ms, _mib             less
    ratio, _per_s, _share     more (a ratio is the other side's time over poise's; a share, of the ideal)

Other numbers and texts say what was measured. ``benchmarks/compare.py`` reads two such files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

FORMAT = "poise-benchmark-1"
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pycocotools", "hotcoco", "transformers", "ultralytics")
Row = dict[str, Any]
T = TypeVar("T")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}  # cpu: seconds of all threads together


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows for benchmarks/compare.py")


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def accelerator() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def track(cases: Iterable[T], total: int | None = None) -> Iterator[T]:
    """Yield the cases and report each on stderr as it begins: ``3/8 NAME, 00:41 so far``.

    Args:
        cases: what is measured; texts name themselves, other values are numbered.
        total: their number, where ``cases`` has no length.
    """
    known = cases if isinstance(cases, Sized) else None
    count = total if known is None else len(known)
    start = time.perf_counter()
    for number, case in enumerate(cases, 1):
        minutes, seconds = divmod(int(time.perf_counter() - start), 60)
        name = f" {case}" if isinstance(case, (str, int)) else ""
        print(f"{number}/{count or '?'}{name}, {minutes:02d}:{seconds:02d} so far", file=sys.stderr, flush=True)
        yield case


def memory(what: str) -> float:
    """MiB of this process: ``VmHWM``, the most since it began or was forked, or ``VmRSS``, what it holds (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def machine() -> dict[str, Any]:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"processor": processor(), "cores": os.cpu_count(), "gpu": accelerator(), "load": load}


def headline() -> str:
    """The machine and the versions in one line, for the top of a table."""
    facts = machine()
    parts = [f"{name} {version}" for name, version in versions().items() if name in ("torch", "torchvision")]
    return f"{facts['processor']}, {facts['cores']} cores, {facts['gpu']}; {', '.join(parts)}"


def write(path: Path | None, benchmark: str, settings: argparse.Namespace | dict[str, Any], rows: list[Row]) -> None:
    """Write the rows, if a path was given.

    Raises:
        ValueError: two rows of one case.
    """
    cases = [row["case"] for row in rows]
    if len(set(cases)) < len(cases):
        raise ValueError(f"{benchmark}: cases must differ: {cases}")
    if path is None:
        return
    chosen = vars(settings) if isinstance(settings, argparse.Namespace) else settings
    content = {
        "format": FORMAT,
        "benchmark": benchmark,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "versions": versions(),
        "settings": {name: value if isinstance(value, (int, float, list)) else str(value)
                     for name, value in chosen.items() if name != "json"},
        "rows": rows,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
