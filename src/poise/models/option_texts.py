"""Options of built-in models with their defaults and explanations, read from the builders' sources without torch."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

from poise.models import groups
from poise.models.table import model_rows

ENTRY = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*)$")  # of a section "Args" in a cleaned docstring


@cache
def option_texts(name: str) -> tuple[tuple[str, str, str], ...]:
    """Return name, default and explanation of every option of a built-in model.

    The explanation may be empty, and so is a default that is no literal.
    Several options that are explained together have the text at the first of them.
    """
    family = model_rows()[name].family
    function = _builder(family)
    own = _explained(ast.get_docstring(function) or "")
    found: list[tuple[str, str, str]] = []
    for argument, node in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        group = _group(node)
        if group is None:
            found.append((argument.arg, _literal(node), own.get(argument.arg, "")))
            continue
        texts = {name: text for kind in type(group).__mro__ for name, text in _explained(kind.__doc__ or "").items()}
        texts |= own
        found += [(one.name, str(vars(group)[one.name]), texts.get(one.name, "")) for one in fields(group)]
    return tuple(one for one in found if one[0] != "backbone_weights")


def _group(node: ast.expr | None) -> groups.OptionGroup | None:
    """Return the group of options that a default makes, or None for another default."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return None
    plain: groups.OptionGroup = vars(groups)[node.func.id]()
    return replace(plain, **{str(one.arg): ast.literal_eval(one.value) for one in node.keywords})


def _builder(family: str) -> ast.FunctionDef:
    for path in sorted(Path(__file__).parent.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if f"\ndef {family}(" in text:
            found = (node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == family)
            return next(found)
    raise LookupError(f"no builder '{family}'")


def _literal(node: ast.expr | None) -> str:
    """Return a default as it is written on the command line, or an empty text if it is no literal."""
    try:
        return str(ast.literal_eval(node)) if node else ""
    except ValueError:
        return ""


def _explained(docstring: str) -> dict[str, str]:
    """Return the explanations of a docstring's arguments, by the first argument of each."""
    found: dict[str, list[str]] = {}
    first, inside = "", False
    for line in inspect.cleandoc(docstring).splitlines():
        inside = line == "Args:" or (inside and (line.startswith("    ") or not line))
        if not inside:
            continue
        if entry := ENTRY.match(line):
            names, text = entry.groups()
            first, _, others = names.partition(", ")
            found[first] = [f"(with {others}) {text}" if others else text]
        elif first and line:
            found[first].append(line.strip())
    return {name: " ".join(lines).replace("``", "") for name, lines in found.items()}
