"""Checks of options before a model or a part is built: name, type and lower bound."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Mapping
from functools import partial
from numbers import Integral, Real
from typing import Any, Union, get_args, get_origin, get_type_hints

from poise.suggestions import did_you_mean

MINIMUM = {  # of options with the same meaning in every model
    "channels": 1,
    "depth": 0,
    "guide_depth": 0,
    "hidden": 1,
    "reg_channels": 1,
    "reg_topk": 1,
    "bins": 2,
    "topk": 1,
    "iterations": 1,
    "l1_epoch": 0,
    "initial_epochs": 0,
    "frozen_stages": -1,
}
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", types.NoneType: "nothing"}


def check_options(owner: str, build: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Check that a builder function or a class has the options, and that their values are valid.

    Args:
        owner: what has the options, for messages: ``'atss_r50_fpn'`` or ``assigner 'atss'``.

    Raises:
        ValueError: an option is unknown or its value invalid; the message names the valid ones.
    """
    hints = option_types(build)
    for option, value in options.items():
        if option not in hints:
            has = f"it has {', '.join(hints)}" if hints else "it has none"
            raise ValueError(f"{owner} has no option '{option}'{did_you_mean(option, hints)}; {has}")
        if not _fits(value, hints[option]):
            raise ValueError(f"{option}={value!r} of {owner} must be {_wanted(hints[option])}")
        if isinstance(value, Real) and float(value) < MINIMUM.get(option, -math.inf):
            raise ValueError(f"{option}={value} of {owner} must be at least {MINIMUM[option]}")


def option_types(build: Callable[..., Any]) -> dict[str, Any]:
    """Return the options of a builder function or a class, with their types (``Any`` where none is declared)."""
    plain = build.func if isinstance(build, partial) else build
    hints = get_type_hints(getattr(plain, "__init__") if isinstance(plain, type) else plain)  # noqa: B009
    names = [name for name in inspect.signature(build).parameters if name != "num_classes"]
    return {name: hints.get(name, Any) for name in names}


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value has the type of a hint; the items of tuples and protocols are not checked."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if origin is tuple:
        return isinstance(value, (tuple, list))
    if origin is Callable or hint is Callable:
        return callable(value)
    if hint in (int, float):
        kind = Integral if hint is int else Real
        return isinstance(value, kind) and not isinstance(value, bool) and value == value
    return not isinstance(hint, type) or hint not in WORDS or isinstance(value, hint)


def _wanted(hint: Any) -> str:
    """Return a type in words."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_wanted(one) for one in get_args(hint)))
    if origin is tuple:
        return "a tuple such as (1, 2)"
    if origin is Callable or hint is Callable:
        return "a function or part"
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))
