"""Compare two runs of a benchmark: a table of every measure, and exit status 1 where the second run is worse.

    python benchmarks/compare.py BEFORE.json AFTER.json [--tolerance 10%] [--only ratio]

Seconds of different machines say nothing of the code; ``--only ratio`` looks at measures whose names end so. Exit
status: 0 no regression, 1 a measure is worse by more than the tolerance or is gone, 2 the files cannot be compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import FORMAT

LESS, MORE = ("_s", "_ms", "_mib"), ("ratio", "_per_s", "_share")


@dataclass(frozen=True)
class Change:
    """One measure of one case, before and after."""

    case: str
    measure: str
    before: float
    after: float | None  # None: gone

    @property
    def worse(self) -> float:
        """By how much the second is worse, as a fraction of the first; negative where it is better."""
        if self.after is None:
            return float("inf")
        low, high = (self.before, self.after) if is_better_when(self.measure) == "less" else (self.after, self.before)
        return (high - low) / low if low > 0 else float(high > low)


def is_better_when(measure: str) -> str | None:
    """ "less", "more" or None for what is no measure."""
    if measure.endswith(MORE):
        return "more"
    return "less" if measure.endswith(LESS) else None


def tolerance(text: str) -> float:
    """ "10%" or "0.1"."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no fraction; write 10% or 0.1") from error
    if not 0 <= value < 10:
        raise argparse.ArgumentTypeError(f"{text!r}: between 0 and 1000 %")
    return value


def load(path: Path) -> dict[str, Any]:
    """A file of ``record.write``.

    Raises:
        ValueError: it is none, or cannot be read.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: not written by a benchmark's --json (format {FORMAT})")
    return content


def changes(before: dict[str, Any], after: dict[str, Any], only: str = "") -> list[Change]:
    """Every measure of the first run.

    Raises:
        ValueError: runs of different benchmarks.
    """
    if before["benchmark"] != after["benchmark"]:
        raise ValueError(f"{before['benchmark']} and {after['benchmark']} are different benchmarks")
    later = {row["case"]: row for row in after["rows"]}
    result = []
    for row in before["rows"]:
        for name, value in row.items():
            if isinstance(value, (int, float)) and is_better_when(name) and name.endswith(only):
                result.append(Change(row["case"], name, float(value), later.get(row["case"], {}).get(name)))
    return result


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What else differs between the runs."""
    pairs = {key: (before[key], after[key]) for key in ("machine", "versions", "settings")}
    found = []
    for key, (old, new) in pairs.items():
        names = [name for name in {**old, **new} if name != "load" and old.get(name) != new.get(name)]
        found += [f"{key}: {name} was {old.get(name)}, is {new.get(name)}" for name in names]
    return found


def table(found: list[Change], allowed: float) -> str:
    lines = ["| case | measure | before | after | change | |", "|---|---|---:|---:|---:|---|"]
    for change in sorted(found, key=lambda change: -change.worse):
        verdict = "worse" if change.worse > allowed else "better" if change.worse < -allowed else ""
        after = "gone" if change.after is None else f"{change.after:.4g}"
        known = change.after is not None and change.before
        percent = f"{100 * (change.after / change.before - 1):+.1f} %" if known else ""
        lines.append(f"| {change.case} | {change.measure} | {change.before:.4g} | {after} | {percent} | {verdict} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--tolerance", type=tolerance, default=0.1, help="10%% by default")
    parser.add_argument("--only", default="", metavar="ENDING", help="measures whose names end so, for example ratio")
    options = parser.parse_args(arguments)
    try:
        before, after = load(options.before), load(options.after)
        found = changes(before, after, options.only)
        if not found:
            raise ValueError(f"{options.before}: no measure ends in '{options.only}'")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for difference in differences(before, after):
        print(f"note: {difference}")
    print(table(found, options.tolerance))
    worse = [change for change in found if change.worse > options.tolerance]
    print(f"\n{len(worse)} of {len(found)} measures are worse by more than {100 * options.tolerance:g} %")
    return int(bool(worse))


if __name__ == "__main__":
    sys.exit(main())
