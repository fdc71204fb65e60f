"""Words of messages: suggestions for misspelled names (every "did you mean" comes from here), and counts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CUTOFF = 0.5  # similarity ratio of ``difflib`` (0 to 1) below which nothing is suggested


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to ``word``, or None where none is similar.

    Underscores and hyphens count as equal, because options are written with either.
    """
    names = {name.replace("-", "_"): name for name in known}
    matches = difflib.get_close_matches(word.replace("-", "_"), names, 1, CUTOFF)
    return names[matches[0]] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``, did you mean 'x'?`` for the closest known name, or an empty string."""
    match = closest(word, known)
    return f", did you mean '{match}'?" if match else ""


def plural(number: int, noun: str) -> str:
    """Format a count with its noun: ``1 class``, ``2 classes``."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{ending}"
