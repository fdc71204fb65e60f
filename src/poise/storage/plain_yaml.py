"""YAML as data: no objects, no references that multiply, no nesting without end."""

from __future__ import annotations

import contextlib
import os
from typing import Any, ClassVar

import yaml
from yaml.events import AliasEvent
from yaml.nodes import Node

LONGEST = 1 << 20  # bytes of a file
DEEPEST = 50  # tables and lists within each other
_MALFORMED = (yaml.YAMLError, RecursionError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class _Refused(ValueError):
    """Valid YAML that is not taken."""


class _Loader(yaml.SafeLoader):
    """Refuses aliases (a few lines of them can stand for billions of values) while the text is composed."""

    depth = 0
    close = yaml.SafeLoader.dispose

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        if self.check_event(AliasEvent):
            raise _Refused("uses YAML aliases, which are refused; write the values out")
        self.depth += 1
        if self.depth > DEEPEST:
            raise _Refused(f"is nested deeper than {DEEPEST} tables and lists")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _TextLoader(_Loader):
    """Reads every value as the text that stands there: ``no`` is not ``False``, ``1.0`` is not a number."""

    yaml_implicit_resolvers: ClassVar[dict[str, object]] = {}


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The content of a file (UTF-8) as :func:`parse_yaml` reads it.

    Raises:
        ValueError: not UTF-8, longer than 1 MiB, or what ``parse_yaml`` refuses; the file is named.
        OSError: there is no such file.
    """
    with open(path, "rb") as file:
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise ValueError(f"{os.fspath(path)}: is larger than {LONGEST} bytes, the limit for such a file")
    try:
        return parse_yaml(content.decode("utf-8-sig"))
    except ValueError as error:  # UnicodeDecodeError is one
        raise ValueError(f"{os.fspath(path)}: {error}; correct it") from error


def parse_yaml(text: str, as_text: bool = False) -> Any:
    """Numbers, strings, dates, lists and tables.

    Args:
        text: the YAML.
        as_text: keep every value and key as a string, as it is written.

    Raises:
        ValueError: no valid YAML, nested deeper than 50, or with aliases or tags for objects.
    """
    try:
        with contextlib.closing((_TextLoader if as_text else _Loader)(text)) as loader:
            return loader.get_single_data()
    except _Refused:
        raise
    except _MALFORMED as error:
        raise ValueError(f"is not valid YAML ({error})") from error
