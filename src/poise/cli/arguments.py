"""Parse command lines into dataclasses with tyro; unknown options are errors with a suggestion."""

from __future__ import annotations

import contextlib
import io
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tyro.conf import UseAppendAction

from poise.cli.help import HELP_WORDS, CommandHelp, options_of, render_help
from poise.suggestions import did_you_mean

if TYPE_CHECKING:
    from poise.data import ImageSet
    from poise.data.class_map import ClassMap

Parsed = TypeVar("Parsed")
DataPaths = UseAppendAction[tuple[Path, ...]]
"""One data set or several: ``--data A --data B``."""


class CommandLineError(ValueError):
    """The command line is not valid; the message names the wrong part and the cure."""


def parse(
    kind: type[Parsed],
    program: str,
    words: Sequence[str],
    *,
    default: Parsed | None = None,
    details: CommandHelp | None = None,
    shown: Mapping[str, object] | None = None,
) -> Parsed:
    """Fill the dataclass ``kind`` from the words of a command line.

    Args:
        kind: fields are options, ``tyro.conf.Positional`` ones are positional; groups nest as ``--group.field``.
        program: name of the command in the help, such as ``poise eval``.
        words: the command line after ``program``.
        default: values of options that are not given; by default those of the fields. Entries of tables
            (``--model.options topk 9``) are added to those of the default.
        details: usual options and examples, for the help.
        shown: values that the help shows as defaults, by option, where they are not those of ``default``.

    Raises:
        CommandLineError: an unknown option, a value of another type, or a missing argument.
        SystemExit: after ``--help`` was printed.
    """
    wanted = list(words)
    if set(HELP_WORDS) & set(wanted):
        print(
            render_help(
                kind, program, details or CommandHelp(), "--help-all" in wanted, default=default, defaults=shown
            )
        )
        raise SystemExit(0)
    refuse_unknown(wanted, set(option_names(kind)), program)
    import tyro

    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            config = (tyro.conf.PositionalMetavarFromFieldName, tyro.conf.FlagCreatePairsOff)
            if default is None:
                parsed = tyro.cli(kind, prog=program, args=wanted, config=config, registry=_registry())
                _require_data(kind, parsed, program)
                return parsed
            start = _without_entries(default)
            given: Parsed = tyro.cli(
                kind, prog=program, args=wanted, config=config, default=start, registry=_registry()
            )
            return _with_entries(default, given)
    except SystemExit as end:
        if not end.code:
            raise
        raise CommandLineError(_plain(message.getvalue(), program)) from None


def _require_data(kind: type, parsed: Any, program: str) -> None:
    """Raise ``CommandLineError`` if no data set is given."""
    if getattr(parsed, "data", None) == ():
        option = next(one.spelled for one in options_of(kind) if one.name == "data")
        raise CommandLineError(f"{program} needs {option} ({program} --help explains)")


def evaluation_images(
    arguments: Any, run: Path | None, trained_with: ClassMap, preferred: tuple[str, ...] = ("val", "test")
) -> tuple[ImageSet, str]:
    """Open the images that a command selects by ``data``, ``split``, ``on_bad_data``, ``follow_links``, ``class_map``.

    Args:
        run, trained_with, preferred: see :func:`poise.data.open_for_evaluation`.

    Returns:
        the images, and a note for the user, or an empty string.
    """
    from poise.data import open_for_evaluation

    return open_for_evaluation(
        arguments.data,
        arguments.split,
        run,
        arguments.on_bad_data,
        follow_links=arguments.follow_links,
        class_map=arguments.class_map or None,
        trained_with=trained_with,
        preferred=preferred,
    )


def data_name(paths: Sequence[Path]) -> str:
    """The name of one data set or of several in titles."""
    return " + ".join(path.name for path in paths)


def _without_entries(settings: object) -> Any:
    """Return the settings with empty tables; of a table with entries tyro would accept only these."""
    if isinstance(settings, dict):
        return {}
    if not is_dataclass(settings) or isinstance(settings, type):
        return settings
    return replace(settings, **{f.name: _without_entries(getattr(settings, f.name)) for f in fields(settings)})


def _with_entries(default: object, given: Parsed) -> Parsed:
    """The given settings; tables keep the entries of the default that are not given."""
    if isinstance(given, dict):
        return cast(Parsed, {**cast(dict[str, object], default), **given})
    if not is_dataclass(given) or isinstance(given, type):
        return given
    merged = {f.name: _with_entries(getattr(default, f.name), getattr(given, f.name)) for f in fields(given)}
    return replace(given, **merged)


def _registry() -> Any:
    """tyro's rules, and one for the values of model options, which are literals: ``4``, ``None``, ``(4, 5)``."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    from poise.recipes.values import OptionValue, parse_value

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
    """Iterate over the options of a dataclass, such as ``schedule.epochs``, with ``-`` for ``_``."""
    hints = typing.get_type_hints(kind)
    for field in fields(kind):
        name = f"{prefix}{field.name}".replace("_", "-")
        if is_dataclass(hints[field.name]):
            nested = "" if field.metadata.get("flat") else f"{name}."
            yield from option_names(hints[field.name], nested)
        else:
            yield (
                f"no-{name}" if field.default is True and not prefix else name
            )  # a flag that is on can only be turned off


def refuse_unknown(words: Sequence[str], known: set[str], program: str) -> None:
    """Raise ``CommandLineError`` for the first unknown option, with a suggestion."""
    for word in words:
        name = word.split("=")[0].removeprefix("--").replace("_", "-")
        if word.startswith("--") and name and name not in known:
            last_parts = {option.rpartition(".")[2]: option for option in known}
            hint = did_you_mean(name, known) or (did_you_mean(name, last_parts) if "." not in name else "")
            close = hint.replace("'", "'--", 1)
            raise CommandLineError(f"{program} has no option '--{name}'{close or '; see ' + program + ' --help'}")


def _plain(message: str, program: str) -> str:
    """Extract the sentence from the box that tyro draws, between its title and its next rule."""
    lines = [line.strip(" │╭╮╰╯") for line in message.splitlines() if line.strip()]
    rules = [number for number, line in enumerate(lines) if number and line and set(line) <= {"─", "-"}]
    first = rules[0] + 1 if rules[:1] == [1] else 1  # without Unicode there is a rule below the title as well
    last = next((number for number in rules if number > first), len(lines))
    text = _in_words(" ".join(lines[first:last]) or message.strip() or "the command line is incomplete")
    text = text.removeprefix("Error parsing recipe.").partition(": ")[2] if text.startswith("Error parsing r") else text
    return f"{text} ({program} --help explains)"


KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "Path": "a path"}


def _in_words(text: str) -> str:
    """Replace the type checker's notation of tyro: ``--epochs: 'ten' is not a whole number``."""
    if found := re.search(r"parsing (--\S+): Failed to parse key-value pairs", text):
        return f"{found[1]}: write names and values in turn, such as {found[1]} car vehicle van vehicle person null"
    if found := re.search(r"parsing (--\S+): .*instantiated from \['(.*?)'\].*class '(int|float|bool)'", text):
        return f"{found[1]}: '{found[2]}' is not {KINDS[found[3]]}"
    if found := re.search(
        r"parsing (--\S+): (?:invalid literal for int\(\).*|could not convert string to float): '(.*)'", text
    ):
        return f"{found[1]}: '{found[2]}' is not {KINDS['int' if 'int()' in text else 'float']}"
    if found := re.search(r"invalid choice '(.*)' for argument '(--\S+)'\. Expected one of \((.*)\)", text):
        choices = [choice.strip("' ") for choice in found[3].split(",")]
        if "None" in choices:  # tyro lists the choices of optional values in no order
            choices = sorted(choice for choice in choices if choice != "None")
        return f"{found[2]}: '{found[1]}' is none of {', '.join(choices)}"
    return text
