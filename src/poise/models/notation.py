"""Parts as text: ``atss(topk=15)`` is a name with options. The text is parsed and never evaluated.

A value of an option is a literal (``15``, ``0.5``, ``true``, ``None``, ``(1, 64)``, ``"a word"``), or a part itself:
``paa(first=max_iou(positive=0.2))``.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass

WORDS = {"true": True, "false": False, "null": None, "inf": float("inf"), "nan": float("nan")}
HOW = "write a name, or a name with options such as atss(topk=15)"


@dataclass(frozen=True)
class Part:
    """The name of a part and its options; None: a bare name, whose options are those of its surroundings."""

    name: str
    options: Mapping[str, object] | None = None

    def __str__(self) -> str:
        if self.options is None:
            return self.name
        return f"{self.name}({', '.join(f'{option}={_written(value)}' for option, value in self.options.items())})"


def parse_part(text: str) -> Part:
    """Parse ``name`` or ``name(option=value, …)``.

    Raises:
        ValueError: the text is neither, a value is no literal, or an option is given twice.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"'{text}': {HOW}") from error
    return _part(node, text)


def _part(node: ast.expr, text: str) -> Part:
    if isinstance(node, ast.Name):
        return Part(node.id)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError(f"'{text}': {HOW}")
    if node.args or any(keyword.arg is None for keyword in node.keywords):
        raise ValueError(f"'{text}': options have names, as in {node.func.id}(name=value)")
    options: dict[str, object] = {}
    for keyword in node.keywords:
        if keyword.arg in options:
            raise ValueError(f"'{text}': {keyword.arg} is given twice")
        options[str(keyword.arg)] = _value(keyword.value, text)
    return Part(node.func.id, options)


def _value(node: ast.expr, text: str) -> object:
    if isinstance(node, ast.Name) and node.id in WORDS:
        return WORDS[node.id]
    if isinstance(node, (ast.Name, ast.Call)):
        return _part(node, text)
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(_value(item, text) for item in node.elts)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"'{text}': {ast.unparse(node)} is not a literal: numbers, words in quotes, tuples") from error


def _written(value: object) -> str:
    if isinstance(value, (tuple, list)):
        inner = ", ".join(_written(item) for item in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return str(value) if isinstance(value, Part) else repr(value)
