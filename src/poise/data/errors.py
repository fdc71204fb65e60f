"""Errors about data: each names the file, the record and the cure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from poise.data.faults import Fault
from poise.suggestions import plural

FOLLOW = "--follow-links reads what links lead to, in Python follow_links=True"
SHOWN = 20  # faults that a message spells out


class DataError(ValueError):
    """A data set that cannot be used as it is."""


class BadImage(DataError):
    """An image file that cannot be used.

    Attributes:
        path: the file.
        kind: a name of :data:`poise.data.faults.FAULT_KINDS`.
        why: what is wrong with it.
        cure: what to do.
    """

    def __init__(self, path: Path | str, kind: str, why: str, cure: str) -> None:
        super().__init__(path, kind, why, cure)  # all arguments, so that it survives pickling between processes
        self.path, self.kind, self.why, self.cure = Path(path), kind, why, cure

    def __str__(self) -> str:
        return f"{self.path}: {self.why}; {self.cure}"


class BadData(DataError):
    """Records that would be dropped, all of them in ``faults``; the message shows the first 20 and the counts."""

    def __init__(self, root: Path | str, faults: Sequence[Fault]) -> None:
        super().__init__(root, faults)
        self.root, self.faults = Path(root), tuple(faults)

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in Counter(f.kind for f in self.faults).most_common())
        lines = [f"{self.root}: {plural(len(self.faults), 'faulty record')} ({counts})"]
        lines += [f"  {fault}" for fault in self.faults[:SHOWN]]
        if len(self.faults) > SHOWN:
            lines.append(f"  ... and {len(self.faults) - SHOWN} more; `poise check` counts them all")
        if any(fault.kind == "image-outside-root" for fault in self.faults):
            lines.append(f"Links that lead out of the folder: {FOLLOW}.")
        lines.append('Correct the files, or leave out exactly these: --on-bad-data skip, in Python on_bad_data="skip".')
        return "\n".join(lines)
