"""Values of options as they are written on the command line: literals, parsed and never evaluated."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import TypeAlias

OptionValue: TypeAlias = bool | int | float | str | tuple[bool | int | float | str | None, ...] | None
"""A value of a model option: a scalar, None, or a tuple of these."""

WORDS = {"true": True, "false": False, "null": None}  # as in YAML; Python's spellings are literals
OPENING, CLOSING = "([{", ")]}"


def parse_value(text: str) -> object:
    """Return the value of a text: ``4``, ``0.5``, ``1e-4``, ``true``, ``None``, ``(4, 5)``; anything else is a string.

    A list is returned as a tuple.
    """
    text = text.strip()
    if text in WORDS:
        return WORDS[text]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return tuple(value) if isinstance(value, list) else value


def plain_class_map(class_map: Mapping[str, str | None]) -> dict[str, str | None]:
    """A map of class names, with None for the word ``null`` of the command line."""
    return {name: None if target in ("null", "None") else target for name, target in class_map.items()}


def stored_value(value: object) -> object:
    """Return the value of a model option as data: an assigner, sampler or criterion becomes its text.

    Raises:
        ValueError: the value is neither a literal nor a part with a name.
    """
    if value is None or isinstance(value, (bool, int, float, str, tuple, list, dict)):
        return value
    from poise.models.exchange import part_text  # needs PyTorch, which plain values do not

    return part_text(value)


def split_values(text: str) -> list[str]:
    """Split a text at the commas that are not within brackets or quotes.

    Raises:
        ValueError: brackets that do not match.
    """
    parts, start, depth, quote = [], 0, 0, ""
    for position, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign in OPENING:
            depth += 1
        elif sign in CLOSING:
            depth -= 1
        elif sign == "," and not depth:
            parts.append(text[start:position])
            start = position + 1
        if depth < 0:
            break
    if depth or quote:
        raise ValueError(f"'{text}': brackets or quotes do not match")
    return [part.strip() for part in (*parts, text[start:])]
