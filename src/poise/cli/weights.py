"""``poise weights``: list, fetch and verify the weights that the original projects published."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from poise.cli.help import CommandHelp


@dataclass(frozen=True)
class Arguments:
    """List, fetch and verify the weights that the original projects published.

    Fetched weights are kept in the user's cache folder, which where prints.
    """

    action: Positional[Literal["list", "get", "verify", "where"]]
    """What to do: list the table, get a checkpoint, verify a file, or print where fetched files are."""
    name: Positional[str] = ""
    """A pattern in quotes for list, a model or checkpoint for get, a file for verify."""
    mirror: str = ""
    """Address or folder that get tries before the public hosts; by default that of POISE_WEIGHTS_MIRROR."""
    unverified: bool = False
    """Let get fetch a file of which no hash is known, and record its hash."""
    left_out: bool = False
    """Let list show the checkpoints that fit no model of poise, with the reasons."""
    json: bool = False
    """Print JSON."""


HELP = CommandHelp(
    examples=(
        "poise weights list 'vfnet_*'",
        "poise weights get vfnet_r50_fpn",
        "poise weights get nanodet_plus_m_320 --unverified",
        "poise weights verify vfnet_r50_fpn_1x_coco_20201027-38db6f58.pth",
        "poise weights where",
    )
)


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


def _facts(one: Any) -> dict[str, object]:
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
