"""``poise weights``: list, fetch and verify the weights that the original projects published."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional


@dataclass(frozen=True)
class Arguments:
    """Published weights: list them, fetch one, verify a file, or print the folder where fetched weights are kept.

    poise weights list [PATTERN]; get NAME; verify FILE; where. NAME is a model or the original's name of a checkpoint.
    """

    action: Positional[Literal["list", "get", "verify", "where"]]
    """What to do."""
    name: Positional[str] = ""
    """list: a shell pattern in quotes; get: a model or checkpoint; verify: a file."""
    mirror: str = ""
    """Address or folder that get tries before the public hosts; by default that of POISE_WEIGHTS_MIRROR."""
    unverified: bool = False
    """Let get fetch a file of which no hash is known, and record its hash."""
    left_out: bool = False
    """Let list show the checkpoints that fit no model of poise, with the reasons."""
    json: bool = False
    """Print JSON."""


def run(arguments: Arguments) -> int:
    """Do what the first word says."""
    if arguments.action == "list":
        return _list(arguments)
    if arguments.action == "get":
        return _get(arguments)
    return _verify(arguments) if arguments.action == "verify" else _where(arguments)


def _list(arguments: Arguments) -> int:
    from poise.published.cache import read_record
    from poise.published.table import left_out, matching

    if arguments.left_out:
        lines = [f"{name}: {reason}" for name, reason in left_out().items()]
        print(json.dumps(left_out(), indent=1) if arguments.json else "\n".join(lines))
        return 0
    found = [(one, read_record(one) is not None) for one in matching(arguments.name or "*")]
    if arguments.json:
        print(json.dumps([{**_facts(one), "fetched": fetched} for one, fetched in found], indent=1))
        return 0
    models = max(len(one.model) for one, _ in found)
    names = max(len(one.original) for one, _ in found)
    print(f"{'model':{models}}  {'checkpoint':{names}}  box AP")
    for one, fetched in found:
        remarks = "; ".join(text for text in ("fetched" if fetched else "", one.remarks) if text)
        print(f"{one.model:{models}}  {one.original:{names}}  {one.box_ap:6.1f}  {remarks}".rstrip())
    return 0


def _facts(one: Any) -> dict[str, Any]:
    return {
        "model": one.model,
        "checkpoint": one.original,
        "box_ap": one.box_ap,
        "addresses": one.addresses,
        "sha256": one.sha256,
        "license": one.license,
        "options": one.options,
        "remarks": one.remarks,
    }


def _get(arguments: Arguments) -> int:
    from poise.published.cache import read_record
    from poise.published.fetch import fetch
    from poise.published.table import checkpoint_of

    if not arguments.name:
        raise ValueError("poise weights get needs the name of a model or checkpoint; poise weights list shows them")
    one = checkpoint_of(arguments.name)
    path = fetch(one, arguments.mirror or None, arguments.unverified)
    record = read_record(one)
    assert record is not None
    if arguments.json:
        print(json.dumps({"file": str(path), **vars(record)}, indent=1))
        return 0
    verified = "fits the table" if record.verified else "was not known before and is recorded"
    print(f"{one.original}, box AP {one.box_ap}, for the model {one.model}")
    print(f"license: {one.license}")
    print(f"SHA-256 of the published file {record.sha256}, which {verified}")
    print(path)
    return 0


def _verify(arguments: Arguments) -> int:
    from poise.published.verify import verify

    if not arguments.name:
        raise ValueError("poise weights verify needs a file")
    result = verify(Path(arguments.name))
    print(json.dumps({"file": arguments.name, "result": result}, indent=1) if arguments.json else result)
    return 0


def _where(arguments: Arguments) -> int:
    from poise.published.cache import cache_folder

    folder = cache_folder()
    kept = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    size = sum(path.stat().st_size for path in kept)
    if arguments.json:
        print(json.dumps({"folder": str(folder), "files": [path.name for path in kept], "bytes": size}, indent=1))
        return 0
    print(folder)
    print(f"{len(kept)} {'file' if len(kept) == 1 else 'files'}, {size / 1e6:.0f} MB")
    return 0
