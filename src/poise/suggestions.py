"""Words of messages: suggestions for misspelled names (every "did you mean" comes from here), counts, lists
and durations."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

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


def shortlist(names: Sequence[str], limit: int = 6) -> str:
    """Join names by commas, at most ``limit`` of them: ``a, b and 3 more``."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def clock(seconds: float) -> str:
    """Format a duration as ``1:30`` or ``2:01:30``; a fraction of a second is dropped."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
