"""Checks of options before a model or a part is built: name, type and lower bound."""

from __future__ import annotations

import functools
import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from inspect import Parameter, Signature
from numbers import Integral, Real
from typing import TypeVar, Union, get_args, get_origin, get_type_hints

from poise.models.groups import OptionGroup
from poise.suggestions import did_you_mean

MINIMUM = {  # of options with the same meaning in every model
    "channels": 1,
    "depth": 0,
    "guide_depth": 0,
    "hidden": 1,
    "reg_channels": 1,
    "reg_topk": 1,
    "bins": 2,
    "iou_bins": 1,
    "topk": 1,
    "bag_topk": 1,
    "iterations": 1,
    "l1_epoch": 0,
    "initial_epochs": 0,
    "frozen_stages": -1,
}
Built = TypeVar("Built")
WORDS: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a word",
    types.NoneType: "nothing",
}


def check_options(owner: str, build: Callable[..., object], options: Mapping[str, object]) -> None:
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


def flat_options(build: Callable[..., Built], further: Sequence[Parameter] = ()) -> Callable[..., Built]:
    """Return a builder function whose groups of options (``poise.models.groups``) are options of their own.

    ``fcos(80, frozen_stages=1)`` then stands for ``fcos(80, backbone=BackboneOptions(frozen_stages=1))``; signature and
    annotations have the fields of each group, with the group's values as defaults. All options are keyword-only.

    Args:
        build: its groups are the parameters whose default is an ``OptionGroup``.
        further: parameters that ``build`` takes by ``**options``.
    """
    types = get_type_hints(build)
    first, *own = inspect.signature(build).parameters.values()
    groups: dict[str, OptionGroup] = {one.name: one.default for one in own if isinstance(one.default, OptionGroup)}
    members = {name: [field.name for field in fields(group)] for name, group in groups.items()}
    shown = [first.replace(annotation=types[first.name])]
    for one in own:
        if one.name in groups:
            group, kinds = groups[one.name], get_type_hints(type(groups[one.name]))
            shown += [
                Parameter(name, Parameter.KEYWORD_ONLY, default=getattr(group, name), annotation=kinds[name])
                for name in members[one.name]
            ]
        elif one.kind is not Parameter.VAR_KEYWORD:
            shown.append(one.replace(annotation=types[one.name]))
    shown += further

    @functools.wraps(build)
    def flat(num_classes: int, **options: object) -> Built:
        given = {
            name: replace(group, **{option: options.pop(option) for option in members[name] if option in options})
            for name, group in groups.items()
        }
        return build(num_classes, **given, **options)

    flat.__annotations__ = {one.name: one.annotation for one in shown} | {"return": types["return"]}
    vars(flat)["__signature__"] = Signature(shown)
    return flat


def option_types(build: Callable[..., object]) -> dict[str, object]:
    """Return the options of a builder function or a class, with their types (``object`` where none is declared)."""
    plain = build.func if isinstance(build, partial) else build
    hints = get_type_hints(getattr(plain, "__init__") if isinstance(plain, type) else plain)  # noqa: B009
    names = [name for name in inspect.signature(build).parameters if name != "num_classes"]
    return {name: hints.get(name, object) for name in names}


def _fits(value: object, hint: object) -> bool:
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


def _wanted(hint: object) -> str:
    """Return a type in words."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_wanted(one) for one in get_args(hint)))
    if origin is tuple:
        return "a tuple such as (1, 2)"
    if origin is Callable or hint is Callable:
        return "a function or part"
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))
