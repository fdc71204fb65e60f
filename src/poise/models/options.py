"""Checks of a model's options before it is built: name, type and lower bound."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
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


def check_options(model: str, builder: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Check that the builder of ``model`` has the options, and that their values are valid.

    Raises:
        ValueError: an option is unknown or its value invalid; the message names the valid ones.
    """
    hints = get_type_hints(builder)
    known = [name for name in hints if name not in ("return", "num_classes")]
    for option, value in options.items():
        if option not in known:
            raise ValueError(
                f"'{model}' has no option '{option}'{did_you_mean(option, known)}; it has {', '.join(known)}"
            )
        if not _fits(value, hints[option]):
            raise ValueError(f"{option}={value!r} of '{model}' must be {_wanted(hints[option])}")
        if isinstance(value, Real) and float(value) < MINIMUM.get(option, -math.inf):
            raise ValueError(f"{option}={value} of '{model}' must be at least {MINIMUM[option]}")


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value has the type of a hint; only plain types are checked."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if hint in (int, float):
        kind = Integral if hint is int else Real
        return isinstance(value, kind) and not isinstance(value, bool) and value == value
    return not isinstance(hint, type) or hint not in WORDS or isinstance(value, hint)


def _wanted(hint: Any) -> str:
    """Return a type in words."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_wanted(one) for one in get_args(hint)))
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))
