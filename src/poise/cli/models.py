"""``poise models``: list the names of models for ``poise train`` and ``poise.create_model``."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tyro.conf import Positional


@dataclass(frozen=True)
class Arguments:
    """List the models whose names match a shell pattern."""

    pattern: Positional[str] = "*"
    """Such as 'atss_*', in quotes, so that the shell does not expand it."""
    json: bool = False
    """Print JSON."""


def run(arguments: Arguments) -> int:
    """Print one name per line."""
    from poise.models import list_models
    from poise.plugins import with_origins

    names = list_models(arguments.pattern)
    if not names:
        raise ValueError(f"no model matches '{arguments.pattern}'; poise models lists all {len(list_models())}")
    print(json.dumps(names, indent=1) if arguments.json else "\n".join(with_origins("model", names)))
    return 0
