"""Cases that only a run of every test takes (``-m ""``); which ones, and why, is in docs/tests.md."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeVar

import pytest
from _pytest.mark import ParameterSet

Value = TypeVar("Value")


def slow_but(cases: Iterable[Value], quick: Collection[Value]) -> list[Value | ParameterSet]:
    """Cases of which all are marked ``slow`` but the ``quick`` ones."""
    listed = list(cases)
    unknown = [case for case in quick if case not in listed]
    assert not unknown, f"{unknown} are no cases"
    return [
        case if case in quick else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for case in listed
    ]


def slow_if(cases: Iterable[Value], slow: Collection[Value]) -> list[Value | ParameterSet]:
    """Cases of which the ``slow`` ones are marked so."""
    listed = list(cases)
    return slow_but(listed, [case for case in listed if case not in slow])
