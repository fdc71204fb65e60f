"""Plug-ins: packages that add their own parts to the dictionaries of poise by the functions ``poise.register_…``.

A package is imported as a plug-in if it declares an entry point of the group ``poise.plugins``, and not before a name
is looked up that poise does not have itself. A broken plug-in is named in a warning and left out. The package that a
checkpoint names is never imported for it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import warnings
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeVar

GROUP = "poise.plugins"  # of entry points: each names a module that registers its parts when it is imported
INTERFACE = 1  # version of the functions ``poise.register_…`` and of what they take

Value = TypeVar("Value")


@dataclass(frozen=True)
class Origin:
    """The package that registered a name."""

    package: str  # as it is imported
    version: str = ""

    def __str__(self) -> str:
        return f"{self.package} {self.version}".rstrip()


class PluginWarning(UserWarning):
    """A plug-in is broken and left out."""


@dataclass(frozen=True)
class _Added:
    kind: str
    name: str
    registry: MutableMapping[str, Any]
    origin: Origin


_added: list[_Added] = []  # in the order of registration
_state = {"loaded": False}


def add(kind: str, registry: MutableMapping[str, Value], name: str, value: Value, *, module: str) -> None:
    """Add an entry to a registry.

    Args:
        kind: what it is, for messages: ``assigner``, ``model``, ….
        module: name of the module that registers it. A package may register a name again, which replaces the entry.

    Raises:
        ValueError: the name is not a Python identifier, or belongs to poise or another package.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{kind} {name!r}: the name must consist of letters, digits and underscores")
    package = module.partition(".")[0]
    earlier = _find(kind, name)
    if name in registry and (earlier is None or earlier.origin.package != package):
        owner = f"package {earlier.origin}" if earlier is not None else "poise"
        raise ValueError(f"{kind} '{name}' of package {package}: {owner} already has this name; choose another one")
    registry[name] = value
    if earlier is None:
        _added.append(_Added(kind, name, registry, Origin(package, _version(package))))


def load_plugins() -> None:
    """Import the plug-ins of the installed packages, once in a process."""
    if _state["loaded"]:
        return
    _state["loaded"] = True
    for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda one: one.name):
        count = len(_added)
        try:
            importlib.import_module(point.value.partition(":")[0])
        except Exception as error:  # anything may be wrong with the code of others; it is named, the rest works
            for one in _added[count:]:
                del one.registry[one.name]
            del _added[count:]
            package = f"package {point.dist.name} {point.dist.version}" if point.dist is not None else "a package"
            warnings.warn(
                f"plug-in '{point.name}' of {package} is broken and left out: {type(error).__name__}: {error}",
                PluginWarning,
                stacklevel=2,
            )


def added_names(kind: str) -> list[str]:
    """Return the names that packages have registered so far."""
    return [one.name for one in _added if one.kind == kind]


def origin_of(kind: str, name: str) -> Origin | None:
    """Return the package that registered a name; None for poise's own."""
    found = _find(kind, name)
    return None if found is None else found.origin


def with_origins(kind: str, names: Iterable[str]) -> list[str]:
    """Return the names, those of plug-ins with their package: ``ours (package ours 0.1)``."""
    origins = {name: origin_of(kind, name) for name in names}
    return [name if origin is None else f"{name} (package {origin})" for name, origin in origins.items()]


def require_interface(version: int) -> None:
    """State the version of this interface for which a package was written.

    Raises:
        ImportError: this poise has another version of the interface; the message names the cure.
    """
    if version != INTERFACE:
        older = "poise" if version > INTERFACE else "the package"
        raise ImportError(
            f"written for version {version} of poise's plug-in interface, this is {INTERFACE}: update {older}"
        )


def _find(kind: str, name: str) -> _Added | None:
    return next((one for one in _added if one.kind == kind and one.name == name), None)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return str(getattr(sys.modules.get(package), "__version__", ""))
