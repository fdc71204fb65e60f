"""Everything that needs a GPU, in one command of at most six minutes: checks, times, memory.

    python benchmarks/gpu.py [--out gpu.json] [--minutes 6] [--parts NAME …]
    python benchmarks/gpu.py --rehearse            every part with tiny sizes on a CPU
    python benchmarks/gpu.py --report gpu.json [--into docs/benchmarks.md]

The parts stand in ``gpu_parts.py``, most important first. The JSON file is written after every part, so that a run that
is cut off keeps what it has. A part that raises is recorded with its error and the next one runs; after an error of the
device the remaining parts run in a new process. ``gpu.md`` says how to run this on a machine without a network.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import record

FORMAT = "poise-gpu-1"
MARKS = ("<!-- gpu: begin -->", "<!-- gpu: end -->")


def written(path: Path, content: dict[str, Any]) -> None:
    """Write the file at once or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, path)


def run(path: Path, names: list[str], deadline: float, rehearse: bool) -> int:
    """Run the parts that the file does not hold yet; return 3 where the device has to be given up."""
    import torch
    from gpu_parts import PARTS, TINY, Setting

    setting = TINY if rehearse else Setting()
    if rehearse:
        torch.set_num_threads(1)
    content = json.loads(path.read_text()) if path.exists() else None
    if content is None:
        content = {"format": FORMAT, "machine": record.machine(), "versions": record.versions(), "parts": {}}
        content |= {"rehearsal": rehearse, "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    for name in names:
        if name in content["parts"]:
            continue
        if time.time() > deadline:
            content["parts"][name] = {"skipped": "no time left"}
            written(path, content)
            continue
        content["parts"][name] = {"error": "the process ended during this part"}
        written(path, content)
        start, broken = time.perf_counter(), False
        try:
            part: dict[str, Any] = {"rows": PARTS[name](setting)}
        except Exception as error:
            part = {"error": f"{type(error).__name__}: {error}"[:2000], "trace": traceback.format_exc()[-4000:]}
            broken = "CUDA error" in str(error) or "device-side assert" in str(error)
        content["parts"][name] = part | {
            "about": (PARTS[name].__doc__ or "").strip(),
            "seconds": time.perf_counter() - start,
        }
        written(path, content)
        print(f"{name}: {'error' if 'error' in part else 'done'} in {time.perf_counter() - start:.1f} s", flush=True)
        if broken:
            return 3
        if setting.on_gpu:
            torch.cuda.empty_cache()
    return 0


def tables(content: dict[str, Any]) -> str:
    """The results in Markdown: a table a part, errors and skipped parts named."""
    machine, versions = content["machine"], content["versions"]
    parts = [f"{machine['gpu']}, {machine['cores']} CPU cores; torch {versions.get('torch')}, {content['date'][:10]}."]
    if content["rehearsal"]:
        parts.append("**A rehearsal on a CPU with tiny sizes: the numbers say nothing about a GPU.**")
    for name, part in content["parts"].items():
        parts.append(f"### {name.replace('_', ' ').capitalize()}")
        if "rows" not in part:
            parts.append(f"Not measured: {part.get('error', part.get('skipped'))}")
            continue
        columns = list(dict.fromkeys(key for row in part["rows"] for key in row))
        lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        lines += [f"| {' | '.join(_cell(row.get(column, '')) for column in columns)} |" for row in part["rows"]]
        parts += [part["about"], "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def report(source: Path, into: Path | None) -> None:
    """Print the tables, or put them between the marks of a document."""
    text = tables(json.loads(source.read_text()))
    if into is None:
        print(text)
        return
    page = into.read_text()
    if not all(mark in page for mark in MARKS):
        raise SystemExit(f"{into} has no lines {MARKS[0]} and {MARKS[1]} between which the tables belong")
    before, after = page.split(MARKS[0])[0], page.split(MARKS[1])[1]
    into.write_text(f"{before}{MARKS[0]}\n\n{text}\n{MARKS[1]}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--minutes", type=float, default=6.0, help="no part begins after this time")
    parser.add_argument("--parts", nargs="+", help="only these")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes on a CPU")
    parser.add_argument("--report", type=Path, help="turn this file into tables")
    parser.add_argument("--into", type=Path, help="with --report: the document that the tables go into")
    parser.add_argument("--deadline", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.report:
        report(options.report, options.into)
        return
    from gpu_parts import PARTS

    names = options.parts or list(PARTS)
    unknown = set(names) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if options.deadline is not None:
        sys.exit(run(options.out, names, options.deadline, options.rehearse))
    if options.out.exists():
        parser.error(f"{options.out} exists: name another file with --out")
    deadline = time.time() + 60 * options.minutes
    words = [sys.executable, __file__, "--out", str(options.out), "--deadline", str(deadline), "--parts", *names]
    words += ["--rehearse"] if options.rehearse else []
    for _ in names:  # a process that breaks has finished at least one part
        if subprocess.run(words).returncode == 0:
            break
    print(f"{options.out}; tables: python benchmarks/gpu.py --report {options.out}")


if __name__ == "__main__":
    main()
