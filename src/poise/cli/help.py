"""Help of a command: its usual options with one sentence each, and examples; ``--help-all`` shows all options."""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

HELP_WORDS = ("-h", "--help", "--help-all")
VALUES = {  # what stands for the value of an option, by the last part of its name …
    "data": "PATH",
    "path": "PATH",
    "out": "PATH",
    "device": "DEVICE",
    "weights": "WEIGHTS",
    "backbone_weights": "W",
    "config": "FILE",
    "proposals": "FILE",
    "val_proposals": "FILE",
    "save_json": "FILE",
    "save_proposals": "FILE",
    "file": "FILE",
    "tta": "LIST",
    "vary": "SETTING=VALUES",
    "mirror": "ADDRESS",
}
KINDS: dict[object, str] = {int: "N", float: "X", Path: "PATH", bool: "true|false", str: "NAME"}  # … or by its type
WIDEST, LEFT = 100, 24  # columns of the whole text, and of the names of options
SETTING = re.compile(r" \((model|data|schedule|optimizer|train|evaluate)\.[^)]*\)")  # not in the short help


@dataclass(frozen=True)
class CommandHelp:
    """What a command's help shows in addition to the docstrings of its arguments.

    Attributes:
        usual: options of the short help, such as ``data.val_share``; empty: all.
        examples: command lines.
        model: name of a built-in model whose options the whole help explains.
    """

    usual: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    model: str = ""


@dataclass(frozen=True)
class Option:
    """An option, or with ``positional`` an argument without a name: its name, value, text and default in words."""

    name: str
    value: str
    text: str
    default: str
    required: bool
    positional: bool
    group: str

    @property
    def spelled(self) -> str:
        """``--epochs N``, or ``NAME`` of a positional argument."""
        if self.positional:
            return self.value or self.name.upper()
        return f"--{self.name.replace('_', '-')} {self.value}".rstrip()


def render_help(
    kind: type,
    program: str,
    details: CommandHelp,
    everything: bool = False,
    *,
    default: object = None,
    defaults: Mapping[str, object] | None = None,
) -> str:
    """Return the help of a command.

    Args:
        kind: dataclass of the arguments.
        program: the command, such as ``poise train``.
        details: usual options and examples.
        everything: all options with their whole text, instead of the usual ones with a sentence each.
        default: an instance whose values are shown as defaults; by default those of the fields.
        defaults: further values that are shown as defaults, by option.
    """
    width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
    options = list(options_of(kind, default))
    shown = [one for one in options if everything or not details.usual or one.positional or one.name in details.usual]
    needed = [one.spelled for one in sorted(options, key=lambda one: not one.positional) if one.required]
    paragraphs = inspect.cleandoc(kind.__doc__ or "").split("\n\n")
    lines = [" ".join(["usage:", program, *needed, "[options]"]), ""]
    for paragraph in paragraphs if everything else paragraphs[:1]:
        lines += [*textwrap.wrap(paragraph, width), ""]
    group = ""
    for one in shown:
        if everything and one.group != group:
            group = one.group
            lines += ["", group]
        lines += _lines(one, everything, (defaults or {}).get(one.name), width)
    if everything and details.model:
        from poise.models.option_texts import option_texts  # other commands start without the models

        lines += ["", f"Options of {details.model} in --model.options NAME VALUE …"]
        for name, value, text in option_texts(details.model):
            lines += _wrapped(name, f"{text} [{value}]" if value else text, width)
    if details.examples:
        lines += ["", "examples:", *(f"  {example}" for example in details.examples)]
    if len(shown) < len(options):
        lines += ["", f"{program} --help-all explains all {len(options)} options."]
    return "\n".join(lines)


def _lines(option: Option, everything: bool, default: object, width: int) -> list[str]:
    text = option.text if everything else SETTING.sub("", first_sentence(option.text))
    value = (_shown(default) if option.value else "") or option.default
    text = f"{text} [{value}]" if value else text
    return _wrapped(option.spelled, text, width)


def _wrapped(name: str, text: str, width: int) -> list[str]:
    start = f"  {name:<{LEFT - 4}}  "
    return textwrap.wrap(text, width, initial_indent=start, subsequent_indent=" " * LEFT) or [start.rstrip()]


def options_of(kind: type, default: object = None, prefix: str = "", group: str = "") -> Iterator[Option]:
    """Iterate over the options of a dataclass; those of dataclasses in it follow, as ``group.name``."""
    from tyro.conf import Positional

    markers = get_args(Positional[str])[1:]
    texts, hints = _texts(kind), typing.get_type_hints(kind, include_extras=True)
    inner: list[tuple[str, Any, object]] = []
    for field in fields(kind):
        given = field.default if field.default is not MISSING else None
        required = field.default is MISSING and field.default_factory is MISSING
        value = given if default is None else getattr(default, field.name)
        if value is None and field.default_factory is not MISSING and not required:
            value = field.default_factory()
        plain, extras = _without_extras(hints[field.name])
        if is_dataclass(plain):
            inner.append(("" if field.metadata.get("flat") else f"{prefix}{field.name}.", plain, value))
            continue
        positional = any(marker in extras for marker in markers)
        flag = plain is bool and not prefix
        name = f"no_{field.name}" if flag and field.default is True else f"{prefix}{field.name}"
        placeholder = "" if flag or (positional and get_origin(plain) is not Literal) else _value(field.name, plain)
        shown = "" if flag or positional else _shown(value)
        yield Option(name, placeholder, texts.get(field.name, ""), shown, required, positional, group)
    for nested, plain, value in inner:
        heading = f"--{nested}… : {first_sentence(inspect.cleandoc(plain.__doc__ or ''))}" if nested else ""
        yield from options_of(plain, value, nested, heading)


def first_sentence(text: str) -> str:
    """Return the text up to the first full stop at the end of a sentence."""
    found = re.match(r".*?\.(?=\s|$)", text, re.DOTALL)
    return found[0] if found else text


def _without_extras(hint: object) -> tuple[object, tuple[object, ...]]:
    extras: tuple[object, ...] = ()
    while get_origin(hint) is typing.Annotated:
        hint, *more = get_args(hint)
        extras += tuple(more)
    return hint, extras


def _value(name: str, hint: object) -> str:
    """What stands for the value of an option, such as ``N`` or ``error|skip``."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(one for one in get_args(hint) if one is not type(None))
    if get_origin(hint) is Literal:
        return "|".join(map(str, get_args(hint)))
    if name in VALUES:
        return VALUES[name]
    if get_origin(hint) is dict:
        return "NAME VALUE …"
    if get_origin(hint) is tuple:
        return f"{KINDS.get(get_args(hint)[0], 'VALUE')} …"
    return KINDS.get(hint, "VALUE")


def _shown(value: object) -> str:
    """A default in words; empty where there is none."""
    if value is None or value == "" or value == () or value == {}:
        return ""
    if isinstance(value, dict):
        return " ".join(f"{name} {one}" for name, one in value.items())
    if isinstance(value, (tuple, list)):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _texts(kind: type) -> dict[str, str]:
    """The docstring below each field of a dataclass and of those that it extends, without line breaks and backticks."""
    texts: dict[str, str] = {}
    for one in reversed([base for base in kind.__mro__ if is_dataclass(base)]):
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        body = node.body if isinstance(node, ast.ClassDef) else []
        for field, below in pairwise(body):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
                texts[field.target.id] = " ".join(str(below.value.value).replace("``", "").split())  # type: ignore[attr-defined]
    return texts
