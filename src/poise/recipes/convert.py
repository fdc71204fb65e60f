"""Convert recipes to plain data and back; unknown names and wrong types are errors."""

from __future__ import annotations

import os
import types
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from poise.recipes.settings import Recipe
from poise.recipes.values import OptionValue, stored_value
from poise.storage import read_yaml, write_text_atomically
from poise.suggestions import closest, did_you_mean

Settings = TypeVar("Settings")


def to_dict(settings: Any) -> dict[str, Any]:
    """Convert settings to nested dicts of numbers, strings and lists, for YAML, JSON and checkpoints."""
    return {name: _plain(value) for name, value in asdict(settings).items()}


def from_dict(values: Mapping[str, object], kind: type[Settings] = Recipe, where: str = "") -> Settings:  # type: ignore[assignment]
    """Convert a nested dict to settings; missing entries keep their defaults.

    Raises:
        ValueError: an unknown name (a similar one is suggested) or a value of another type.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where or 'a recipe'} must be a table of settings, not {values!r}")
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise ValueError(f"no setting '{_join(where, name)}'{_nearest(name, where, known)}")
    return kind(**{name: _convert(value, hints[name], _join(where, name)) for name, value in values.items()})


def save_recipe(recipe: Recipe, path: str | os.PathLike[str]) -> None:
    """Write a recipe as YAML that :func:`load_recipe` reads."""
    write_text_atomically(path, yaml.safe_dump(to_dict(recipe), sort_keys=False, allow_unicode=True))


def load_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe from a YAML file.

    Raises:
        ValueError: the file is not YAML, or a setting is unknown or of the wrong type; file and setting are named.
    """
    values = read_yaml(path)
    try:
        return from_dict(values if values is not None else {})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def with_settings(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Replace some settings of a recipe, such as ``{"schedule.epochs": 3}``; checked as in :func:`from_dict`."""
    values = to_dict(recipe)
    for path, value in changes.items():
        *groups, last = path.split(".")
        table = values
        for group in groups:
            table = table.setdefault(group, {})
            if not isinstance(table, dict):
                raise ValueError(f"no setting '{path}': '{group}' is a value, not a group of settings")
        table[last] = value
    return from_dict(values)


def setting_paths(kind: Any, prefix: str = "") -> Iterator[str]:
    """Iterate over the paths of all settings of a dataclass, such as ``schedule.epochs``."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        path = f"{prefix}{field.name}"
        if is_dataclass(hints[field.name]):
            yield from setting_paths(hints[field.name], f"{path}.")
        else:
            yield path


def differences(before: Mapping[str, Any], recipe: Recipe) -> list[tuple[str, object, object]]:
    """List (setting, old value, new value) of every setting in which a recipe differs from one given as a dict."""
    return [
        (f"{group}.{name}", before.get(group, {}).get(name), value)
        for group, settings in to_dict(recipe).items()
        for name, value in settings.items()
        if before.get(group, {}).get(name) != value
    ]


def _nearest(name: str, where: str, known: list[str]) -> str:
    if (match := closest(str(name), known)) is not None:
        return f", did you mean '{_join(where, match)}'?"
    return f"; {where or 'a recipe'} has {', '.join(known)}"


def _join(where: str, name: object) -> str:
    return f"{where}.{name}" if where else str(name)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _convert(value: object, kind: object, where: str) -> object:
    """Convert ``value`` to the annotated type, or raise ``ValueError`` with the expected type."""
    if kind == OptionValue:
        value = stored_value(value)
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return from_dict(value, kind, where)  # type: ignore[arg-type]
    if origin is Literal:
        if value in arguments and any(value == known and type(value) is type(known) for known in arguments):
            return value
        choices = ", ".join(map(str, arguments))
        raise ValueError(f"{where}={value!r} is none of {choices}{did_you_mean(str(value), map(str, arguments))}")
    if origin in (Union, types.UnionType):
        return _first_that_fits(value, arguments, where)
    if origin is tuple:
        return _convert_tuple(value, arguments, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}={value!r} must be a table of names and values")
        return {_convert(k, arguments[0], where): _convert(v, arguments[1], f"{where}.{k}") for k, v in value.items()}
    return _convert_scalar(value, kind, where)


def _convert_scalar(value: object, kind: object, where: str) -> object:
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str) and _is_number(value):
        return float(value)  # YAML 1.1 reads 1e-4 as a string
    if kind in (bool, int, str, type(None)) and type(value) is kind:
        return value
    words: dict[object, str] = {float: "a number", int: "a whole number", str: "a string", bool: "true or false"}
    wanted = words.get(kind, str(kind))
    raise ValueError(f"{where}={value!r} must be {wanted}")


def _convert_tuple(value: object, arguments: tuple[object, ...], where: str) -> tuple[object, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{where}={value!r} must be a list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_convert(item, arguments[0], where) for item in value)
    if len(value) != len(arguments):
        raise ValueError(f"{where}={value!r} must be a list of {len(arguments)} values")
    return tuple(_convert(item, kind, where) for item, kind in zip(value, arguments, strict=True))


def _first_that_fits(value: object, kinds: tuple[object, ...], where: str) -> object:
    exact = [kind for kind in kinds if type(value) is kind]
    reasons = []
    for kind in exact + [kind for kind in kinds if kind not in exact]:
        try:
            return _convert(value, kind, where)
        except ValueError as error:
            reasons.append(str(error))
    raise ValueError(" or ".join(dict.fromkeys(reasons)))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
