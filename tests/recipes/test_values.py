"""Values of options as the command line writes them."""

from __future__ import annotations

from typing import Any

import pytest

from poise.recipes.values import parse_value, split_values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4),
        ("0.5", 0.5),
        ("1e-4", 1e-4),
        ("true", True),
        ("False", False),
        ("None", None),
        ("null", None),
        ("(4, 5)", (4, 5)),
        ("[4, 5]", (4, 5)),
        ("none", "none"),
        ("faster_rcnn,atss", "faster_rcnn,atss"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
    ],
)
def test_literals_are_parsed_and_never_evaluated(text: str, value: Any) -> None:
    parsed = parse_value(text)
    assert parsed == value and type(parsed) is type(value)


def test_commas_within_brackets_do_not_separate() -> None:
    assert split_values("(5,),(4, 5),none") == ["(5,)", "(4, 5)", "none"]
    assert split_values("atss(topk=9,a=[1,2]),'x,y'") == ["atss(topk=9,a=[1,2])", "'x,y'"]
    for wrong in ("(4", "4)", "'a"):
        with pytest.raises(ValueError, match="do not match"):
            split_values(wrong)
