"""The table of published checkpoints: which file holds weights for which model, and where it is published.

The rows are in ``weights.csv``; the first row of a model is the one that the word ``coco`` selects. ``left_out.csv``
lists checkpoints of the same model zoos that fit no model of poise, with the reason.
"""

from __future__ import annotations

import csv
import fnmatch
from ast import literal_eval
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from poise.suggestions import did_you_mean

COCO = "coco"  # the word that selects the first checkpoint of a model
HOSTS = {  # by source, in the order in which they are tried; a file has the same path on all of them
    "mmdetection": (
        "https://download.openmmlab.com/mmdetection/",
        "https://mmassets.onedl.ai/mmdetection/",
    ),
    "nanodet": ("https://github.com/RangiLyu/nanodet/releases/download/",),
    "mmlab-weights": ("https://github.com/RistoranteRist/mmlab-weights/releases/download/",),
}
HOSTS["co_detr"] = HOSTS["mmdetection"]
LICENSES = {
    "mmdetection": "Apache-2.0 (code); no separate statement for weights",
    "mmlab-weights": "Apache-2.0 (code); no separate statement for weights",
    "co_detr": "MIT (code); no separate statement for weights",
    "nanodet": "Apache-2.0",
}


@dataclass(frozen=True)
class Checkpoint:
    """A published file of weights and the model of poise that it fits."""

    model: str  # name for ``create_model``
    original: str  # name in the model zoo of the original project
    box_ap: float  # published box AP on COCO val2017, in percent
    source: str  # key of ``HOSTS`` and ``LICENSES``
    path: str  # of the file, below each host
    sha256: str  # first digits of the file's SHA-256; empty: not known
    options: dict[str, object]  # of ``create_model``, needed besides the name
    keys: str  # golden key list that the tests load into the model; empty: keys not tested
    note: str

    @property
    def file_name(self) -> str:
        """Name of the published file."""
        return self.path.rpartition("/")[2]

    @property
    def addresses(self) -> tuple[str, ...]:
        """Addresses of the file, one for each host."""
        return tuple(host + self.path for host in HOSTS[self.source])

    @property
    def license(self) -> str:
        """License of the file, as far as it is stated."""
        return LICENSES[self.source]

    @property
    def remarks(self) -> str:
        """Return what is unclear about the file, in words; empty: nothing."""
        untested = "" if self.keys else "keys not tested"
        return "; ".join(text for text in (self.note, "" if self.sha256 else "hash not known", untested) if text)


@cache
def checkpoints() -> tuple[Checkpoint, ...]:
    """Return the rows of ``weights.csv``."""
    return tuple(
        Checkpoint(
            model=row["model"],
            original=row["original"],
            box_ap=float(row["box_ap"]),
            source=row["source"],
            path=row["file"],
            sha256=row["sha256"],
            options={name: literal_eval(value) for name, value in (one.split("=") for one in row["options"].split())},
            keys=row["keys"],
            note=row["note"],
        )
        for row in _rows("weights.csv")
    )


@cache
def left_out() -> dict[str, str]:
    """Return the original names of checkpoints that fit no model of poise, with the reason."""
    return {row["original"]: row["reason"] for row in _rows("left_out.csv")}


def matching(pattern: str = "*") -> list[Checkpoint]:
    """Return the checkpoints whose model or original name matches a shell pattern.

    Raises:
        ValueError: none does; a similar name is suggested.
    """
    found = [one for one in checkpoints() if any(fnmatch.fnmatch(name, pattern) for name in (one.model, one.original))]
    if not found:
        raise ValueError(_unknown(pattern))
    return found


def checkpoint_of(name: str, model: str | None = None) -> Checkpoint:
    """Return the checkpoint that a name selects.

    Args:
        name: the original's name, or the name of a model for its first checkpoint, or ``coco`` together with ``model``.
        model: require a checkpoint of this model.

    Raises:
        ValueError: there is none (a similar name is suggested), or it is one of another model.
    """
    wanted = model if name == COCO and model is not None else name
    found = next((one for one in checkpoints() if wanted in (one.original, one.model)), None)
    if found is None and wanted == model:
        with_weights = {one.model for one in checkpoints()}
        raise ValueError(
            f"no published checkpoint fits '{model}'{did_you_mean(wanted, with_weights)}; poise weights list shows all"
        )
    if found is None:
        raise ValueError(_unknown(name))
    if model is not None and found.model != model:
        raise ValueError(f"the checkpoint '{name}' is one of the model '{found.model}', not of '{model}'")
    return found


def _unknown(name: str) -> str:
    if name in left_out():
        return f"'{name}' fits no model of poise: {left_out()[name]}"
    known = {one.original for one in checkpoints()} | {one.model for one in checkpoints()}
    return f"no published checkpoint '{name}'{did_you_mean(name, known)}; poise weights list shows all"


def _rows(file: str) -> list[dict[str, str]]:
    with open(Path(__file__).with_name(file), encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))
