"""Values of annotation files as programs write them: numbers and yes or no as text, integers as floats."""

from __future__ import annotations

import re
from typing import Any

_NO = frozenset({"", "0", "false", "no", "unspecified", "none", "null"})
_YES = frozenset({"1", "true", "yes"})


def flag(value: object) -> bool | None:
    """Whether a flag such as ``iscrowd`` is set; None where that is unclear.

    0, ``"0"``, ``"false"`` and a missing value are no; 1, ``"1"`` and ``"true"`` are yes.
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, (int, float)):
        return bool(value) if value in (0, 1) else None
    if not isinstance(value, str):
        return None
    text = value.strip().lower()
    return False if text in _NO else True if text in _YES else None


def integral(value: object) -> Any:
    """Integers that were written as floats (``1.0``) as integers; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def integer(value: object) -> Any:
    """As :func:`integral`, and integers that were written as text (``"1"``) too."""
    if isinstance(value, str) and re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", value.strip()):
        return int(value)
    return integral(value)
