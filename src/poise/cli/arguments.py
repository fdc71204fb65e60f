"""Command lines from typed dataclasses, by tyro; unknown options are refused with the nearest one that exists."""

from __future__ import annotations

import contextlib
import io
import typing
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from poise.recipes.values import OptionValue, parse_value
from poise.suggestions import did_you_mean

Parsed = TypeVar("Parsed")


class CommandLineError(ValueError):
    """The words of the command line make no sense; the message says which and what would."""


def parse(kind: type[Parsed], program: str, words: Sequence[str], default: Parsed | None = None) -> Parsed:
    """Fill the dataclass ``kind`` from the words of a command line.

    Args:
        kind: fields are options, ``tyro.conf.Positional`` ones are positional; groups nest as ``--group.field``.
        program: what the help calls the command, such as ``poise eval``.
        words: the command line after ``program``.
        default: values of what is not given; by default those of the fields. Of tables (``--model.options topk 9``)
            the entries that are given join those of the default.

    Raises:
        CommandLineError: an unknown option, a value of another type, or something required is missing.
        SystemExit: after ``--help`` was printed.
    """
    import tyro

    wanted = list(words)
    if not {"-h", "--help"} & set(wanted):
        refuse_unknown(wanted, set(option_names(kind)), program)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            config = (tyro.conf.PositionalMetavarFromFieldName, tyro.conf.FlagCreatePairsOff)
            if default is None:
                return tyro.cli(kind, prog=program, args=wanted, config=config, registry=_registry())
            start = _without_entries(default)
            given = tyro.cli(kind, prog=program, args=wanted, config=config, default=start, registry=_registry())
            return _with_entries(default, given)
    except SystemExit as end:
        if not end.code:
            raise
        raise CommandLineError(_plain(complaint.getvalue(), program)) from None


def _without_entries(settings: Any) -> Any:
    """The same with empty tables: of a table with entries tyro would accept these entries only."""
    if isinstance(settings, dict):
        return {}
    if not is_dataclass(settings) or isinstance(settings, type):
        return settings
    return replace(settings, **{f.name: _without_entries(getattr(settings, f.name)) for f in fields(settings)})


def _with_entries(default: Any, given: Any) -> Any:
    """The given settings; tables keep the entries of the default that are not given."""
    if isinstance(given, dict):
        return {**default, **given}
    if not is_dataclass(given) or isinstance(given, type):
        return given
    merged = {f.name: _with_entries(getattr(default, f.name), getattr(given, f.name)) for f in fields(given)}
    return replace(given, **merged)


def _registry() -> Any:
    """tyro's rules, and one for the values of model options, which are literals: ``4``, ``None``, ``(4, 5)``."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def option_value(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        if info.type != OptionValue:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="VALUE",
            instance_from_str=lambda words: parse_value(words[0]),
            is_instance=lambda value: True,
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def option_names(kind: Any, prefix: str = "") -> Iterator[str]:
    """``schedule.epochs`` and so on: every option of a dataclass, with ``-`` for ``_``."""
    hints = typing.get_type_hints(kind)
    for field in fields(kind):
        name = f"{prefix}{field.name}".replace("_", "-")
        if is_dataclass(hints[field.name]):
            nested = "" if field.metadata.get("flat") else f"{name}."
            yield from option_names(hints[field.name], nested)
        else:
            yield f"no-{name}" if field.default is True and not prefix else name  # a flag that is on is switched off


def refuse_unknown(words: Sequence[str], known: set[str], program: str) -> None:
    """Raise ``CommandLineError`` for the first option that is not known, with the nearest one that is."""
    for word in words:
        name = word.split("=")[0].removeprefix("--").replace("_", "-")
        if word.startswith("--") and name and name not in known:
            last_parts = {option.rpartition(".")[2]: option for option in known}
            hint = did_you_mean(name, known) or (did_you_mean(name, last_parts) if "." not in name else "")
            close = hint.replace("'", "'--", 1)
            raise CommandLineError(f"{program} has no option '--{name}'{close or '; see ' + program + ' --help'}")


def _plain(complaint: str, program: str) -> str:
    """The sentence inside the box that tyro draws: what stands between its title and its next rule."""
    lines = [line.strip(" │╭╮╰╯") for line in complaint.splitlines() if line.strip()]
    rules = [number for number, line in enumerate(lines) if number and line and set(line) <= {"─", "-"}]
    first = rules[0] + 1 if rules[:1] == [1] else 1  # without Unicode there is a rule under the title too
    last = next((number for number in rules if number > first), len(lines))
    text = " ".join(lines[first:last]) or complaint.strip() or "the command line is incomplete"
    text = text.removeprefix("Error parsing recipe.").partition(": ")[2] if text.startswith("Error parsing r") else text
    return f"{text} ({program} --help explains)"
