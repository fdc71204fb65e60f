"""Whether the tests find faults: each is put into a copy of the sources, and the tests that should notice are run.

python benchmarks/mutations.py [NAME ...]    # names of faults; all by default, none of which may stay unnoticed

First the same tests must pass without any fault. The ordinary tests run first; where none of them notices, those marked
``slow`` run too (docs/tests.md).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("src", "tests", "benchmarks", "docs", "README.md", "pyproject.toml")


@dataclass(frozen=True)
class Fault:
    """One replacement in one file, and the tests that should fail of it."""

    name: str
    file: str  # below src/poise
    before: str  # a regular expression that matches once
    after: str
    tests: str  # arguments of pytest


FAULTS = (
    Fault(
        "assign: ATSS's threshold without the standard deviation", "assign/atss.py",
        r"return (\w+) \+ \w+\.sqrt\(\)", r"return \1", "tests/assign/test_literal_assigners.py",
    ),
    Fault(
        "losses: varifocal loss without alpha", "losses.py",
        r"\(1 - positive\) \* alpha \* ", "(1 - positive) * ", "tests/test_losses.py",
    ),
    Fault(
        "boxes: GIoU divides by the union", "boxes.py",
        r"\(enclosing - union\) / enclosing", "(enclosing - union) / union",
        "tests/test_boxes.py tests/test_losses.py",
    ),
    Fault(
        "criteria: IoU weights of negatives count in the normalizer", "criteria/varifocal.py",
        r"clamp\(min=EPS\) \* assignment\.positive", "clamp(min=EPS)", "tests/criteria/test_varifocal_golden.py",
    ),
    Fault(
        "data: YOLO's y is multiplied by the width", "data/yolo_lines.py",
        r"\(y - h / 2\) \* height", "(y - h / 2) * width", "tests/data/test_readers.py tests/data/test_field_yolo.py",
    ),
    Fault(
        "data: difficult objects of Pascal VOC count", "data/voc.py",
        r"difficult\.append\(difficult\)", "difficult.append(False)", "tests/data/test_readers.py",
    ),
    Fault(
        "resume: random generators start anew", "engine/state.py",
        r"\bset_random_state\(.+\)$", "pass",
        "tests/engine/test_resume.py::test_killed_at_a_step",
    ),
    Fault(
        "resume: the sums of the running epoch are lost", "engine/state.py",
        r"Meter\.restored\(.+\)$", "Meter()",
        "tests/engine/test_resume.py::test_killed_at_a_step",
    ),
    Fault(
        "checkpoints: the older one goes before the new one is in its place", "storage/writing.py",
        r"    os\.replace\(temporary, path\)\n    sync_folder\(path\.parent\)\n    os\.replace\(aside, keep\)\n",
        "    os.replace(aside, keep)\n    os.replace(temporary, path)\n", "tests/engine/test_saves.py",
    ),
    Fault(
        "checkpoints: no fsync before the rename", "storage/writing.py",
        r"os\.fsync\(file\.fileno\(\)\)", "pass", "tests/test_storage.py tests/engine/test_saves.py",
    ),
    Fault(
        "evaluation: crowds are ordinary objects", "evaluate/coco.py",
        r"iscrowd=truth\.crowd\b", "iscrowd=truth.crowd & False", "tests/evaluate/test_coco.py",
    ),
    Fault(
        "export: another NMS threshold in the ONNX file", "export/suppression.py",
        r"\[post\.nms_threshold or 0\]", "[0.9]",
        "tests/export/test_onnx.py::test_nms_inside_where_the_threshold_does_not_read_the_score",
    ),
    Fault(
        "lab: churn is divided by the earlier positives alone", "lab/churn.py",
        r"/ len\((\w+) \| \w+\)", r"/ max(len(\1), 1)", "tests/lab/test_tally.py",
    ),
    Fault(
        "distributed: sums over ranks instead of means", "distributed.py",
        r"sum_over_ranks\(value\) / dist\.get_world_size\(\)", "sum_over_ranks(value)",
        "tests/engine/test_distributed.py::test_several_processes_equal_one",
    ),
    Fault(
        "augmentation: boxes of the warp are not shifted", "data/augment/geometry.py",
        r" \+ torch\.tensor\(offsets\[::-1\] \* 2\)", "", "tests/data/test_augment_warp.py",
    ),
)  # fmt: skip


def copy_sources(root: Path) -> None:
    root.mkdir()
    for part in COPIED:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
        copy(ROOT / part, root / part)


def put_in(fault: Fault, root: Path) -> str:
    """Change the file; returns what it was."""
    path = root / "src" / "poise" / fault.file
    text = path.read_text(encoding="utf-8")
    changed, count = re.subn(fault.before, fault.after, text, flags=re.MULTILINE)
    if count != 1:
        raise ValueError(f"{fault.file}: {fault.before!r} matches {count} times; correct FAULTS in {__file__}")
    path.write_text(changed, encoding="utf-8")
    return text


def run(tests: str, root: Path, marked: str) -> tuple[int, str]:
    """Exit status of pytest and the first test that failed."""
    options = ["-q", "-x", "-p", "no:cacheprovider", "-m", marked]
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", *options, *tests.split()]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return done.returncode, failed.group(1) if failed else done.stdout.strip().rpartition("\n")[2]


def noticed(fault: Fault, root: Path) -> tuple[str, str]:
    """Which tests notice the fault ("ordinary", "slow" or ""), and the first of them."""
    for marked in ("not slow", "slow"):
        status, output = run(fault.tests, root, marked)
        if status == 1:
            return "ordinary" if marked == "not slow" else "slow", output
        if status not in (0, 5):  # 5: nothing to run
            raise RuntimeError(f"{fault.name}: pytest ended with status {status}: {output}")
    return "", ""


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of the names of faults")
    names = parser.parse_args(words).names
    chosen = [fault for fault in FAULTS if not names or any(name in fault.name for name in names)]
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "poise"
        copy_sources(root)
        status, output = run(" ".join(dict.fromkeys(" ".join(fault.tests for fault in chosen).split())), root, "")
        if status != 0:
            raise RuntimeError(f"without any fault: {output}")
        print("| fault | found by | first test that fails |\n|---|---|---|", flush=True)
        for fault in chosen:
            text = put_in(fault, root)
            tests, first = noticed(fault, root)
            (root / "src" / "poise" / fault.file).write_text(text, encoding="utf-8")
            missed += not tests
            print(f"| {fault.name} | {tests or 'no test'} | {first} |", flush=True)
    print(f"\n{len(chosen) - missed} of {len(chosen)} faults are found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
