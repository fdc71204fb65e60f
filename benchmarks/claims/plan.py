"""Plan the trainings of docs/claims.md: learning rates first, then a pilot, then the runs that are compared.

A plan is a function of the results so far. A run is due when the results that it depends on exist and its own does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from poise.recipes import Recipe, get_recipe, with_settings
from poise.recipes.ablation import plain_name
from poise.recipes.articles import TABLES

Stage = Literal["rate", "pilot", "final"]
Results = Mapping[str, Mapping[str, Any]]
PATIENCE = 0.3  # percentage points of validation AP
RATE_SHARE = 10  # the search for a rate takes one part in so many of the limit


@dataclass(frozen=True)
class DataLimits:
    """Epochs that the share of a claim allows on a data set, and epochs between two validations."""

    epochs: int
    every: int


@dataclass(frozen=True)
class Claim:
    """A claim: the variants of its inequalities, and the data sets.

    ``others`` are trained once for orientation, ``own`` are schemes of poise, compared with every seed in the number of
    steps that the variants of the claim fix.
    """

    number: int
    compared: tuple[str, ...]
    others: tuple[str, ...] = ()
    data: tuple[str, ...] = ("bccd", "scenes")
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    seeds: tuple[int, ...] = (0, 1, 2)
    limits: tuple[DataLimits, ...] = (DataLimits(72, 4), DataLimits(10, 1))
    own: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        return f"claim_{self.number}"


CLAIMS = (
    Claim(
        1,
        ("DW", "VarifocalNet", "ATSS", "FCOS"),
        ("TOOD", "GFL", "PAA", "AutoAssign", "SimOTA", "DW, no refinement", "VarifocalNet, no refinement"),
        own=("ATSS, covered", "VarifocalNet, covered"),
    ),
    Claim(
        4,
        (
            "guide, never detached",
            "guide, detached from the start",
            "guide, detached after detach_epoch",
            "no guide",
            "no guide, ATSS",
            "no guide, SimOTA",
        ),
        limits=(DataLimits(28, 4), DataLimits(3, 1)),
    ),
    Claim(
        3,
        (
            "RetinaNet, varifocal",
            "RetinaNet, focal",
            "FoveaBox, varifocal",
            "FoveaBox, focal",
            "ATSS, varifocal",
            "ATSS, focal",
            "VarifocalNet, varifocal",
            "VarifocalNet, focal",
            "VarifocalNet, quality focal",
        ),
        ("VarifocalNet, no star", "VarifocalNet, no refinement"),
        limits=(DataLimits(40, 4), DataLimits(4, 1)),
    ),
    Claim(
        2,
        ("Faster R-CNN", "Libra R-CNN"),
        ("+ OHEM", "+ IoU-balanced sampling", "+ article's sampling", "+ BFP", "+ balanced L1"),
        limits=(DataLimits(60, 4), DataLimits(6, 1)),
    ),
    Claim(
        5,
        ("K=0 (Deformable-DETR++)", "K=1 ATSS", "K=2 ATSS + Faster R-CNN", "K=2 ATSS + ATSS"),
        data=("bccd",),
        rates=(3e-4, 6e-4, 1.2e-3),
        seeds=(0,),
        limits=(DataLimits(60, 4),),
    ),
    Claim(
        6,
        (
            "DW",
            "negative: neither factor",
            "bag: 9 nearest a level",
            "bag: within 1.5 strides",
            "mu 3",
            "mu 8",
        ),
        ("negative: 1 - positive weight", "negative: probability alone", "negative: importance alone"),
        limits=(DataLimits(40, 4), DataLimits(4, 1)),
    ),
)
ORDER = (1, 2, 3, 5, 4, 6)  # of the claims, the one whose verdicts are wanted first


@dataclass(frozen=True)
class ClaimRun:
    """One training of the plan."""

    claim: int
    stage: Stage
    variant: str
    data: str
    seed: int
    rate: float
    epochs: int
    every: int  # epochs between two validations; 0: after the last epoch alone

    @property
    def name(self) -> str:
        """Path of its result below the folder of results, without the suffix."""
        variant = plain_name(self.variant)
        last = f"rate-{self.rate:g}" if self.stage == "rate" else f"{self.stage}-seed-{self.seed}"
        return f"claim_{self.claim}/{self.data}/{variant}/{last}"

    def recipe(self, path: str) -> Recipe:
        """The whole recipe of this run on the data at ``path``."""
        table = TABLES[f"claim_{self.claim}"]
        changes = next(one.changes for one in table.ablation.variants if one.name == self.variant)
        rest: dict[str, Any] = {
            "data.path": path,
            "data.val": "val",
            "optimizer.lr": self.rate,
            "train.seed": self.seed,
            "schedule.epochs": self.epochs,
            "evaluate.every": self.every,
        }
        if self.stage == "pilot":
            rest |= {"schedule.kind": "constant", "train.patience": PATIENCE}
        if self.stage != "rate":
            rest["train.lab_every"] = 100
        return with_settings(get_recipe(table.recipe), {**changes, **rest})


def due(results: Results, claims: Sequence[Claim] = CLAIMS) -> list[ClaimRun]:
    """Runs that can be trained now: each claim's first data set, then the second, then what has no inequality."""
    others = {(claim.number, variant) for claim in claims for variant in claim.others}
    own = {(claim.number, variant) for claim in claims for variant in claim.own}
    found = [run for claim in claims for run in _of_claim(claim, results) if run.name not in results]
    first = {claim.number: claim.data[0] for claim in claims}

    def urgency(run: ClaimRun) -> tuple[bool, bool, int, bool]:
        variant = run.claim, run.variant
        return variant in others, run.data != first[run.claim], ORDER.index(run.claim), variant in own

    return sorted(found, key=urgency)


def _of_claim(claim: Claim, results: Results) -> Iterator[ClaimRun]:
    for data, limits in zip(claim.data, claim.limits, strict=True):
        for variant in claim.compared:
            yield from _rates(claim, variant, data, limits)
        for variant in claim.compared:
            rate = best_rate(claim, variant, data, results)
            if rate is not None:
                yield _run(claim, "pilot", variant, data, limits, rate)
        yield from _finals(claim, data, limits, claim.compared, claim.seeds, results)
        for variant in claim.own:
            yield from _rates(claim, variant, data, limits)
        yield from _finals(claim, data, limits, claim.own, claim.seeds, results)
        if data == claim.data[0]:
            for variant in claim.others:
                yield from _rates(claim, variant, data, limits)
            yield from _finals(claim, data, limits, claim.others, claim.seeds[:1], results)


def _rates(claim: Claim, variant: str, data: str, limits: DataLimits) -> Iterator[ClaimRun]:
    for rate in claim.rates:
        yield _run(claim, "rate", variant, data, limits, rate)


def _finals(
    claim: Claim, data: str, limits: DataLimits, variants: Sequence[str], seeds: Sequence[int], results: Results
) -> Iterator[ClaimRun]:
    """The runs that are compared; a pilot of the fixed length is one of them."""
    epochs = fixed_epochs(claim, data, results)
    if epochs is None:
        return
    for seed in seeds:
        for variant in variants:
            rate = best_rate(claim, variant, data, results)
            pilot = _run(claim, "pilot", variant, data, limits, claim.rates[0])
            serves = seed == 0 and results.get(pilot.name, {}).get("epochs") == epochs
            if rate is not None and not serves:
                yield ClaimRun(claim.number, "final", variant, data, seed, rate, epochs, limits.every)


def best_rate(claim: Claim, variant: str, data: str, results: Results) -> float | None:
    """The rate with the best validation AP, once all have been tried; failed runs do not count."""
    limits = claim.limits[claim.data.index(data)]
    tried = [results.get(run.name) for run in _rates(claim, variant, data, limits)]
    if any(result is None for result in tried):
        return None
    scores = [(result or {}).get("val_ap", -1.0) for result in tried]
    return claim.rates[scores.index(max(scores))] if max(scores) >= 0 else None


def fixed_epochs(claim: Claim, data: str, results: Results) -> int | None:
    """Epochs of every run that is compared: those of the longest pilot, once all pilots have ended."""
    limits = claim.limits[claim.data.index(data)]
    pilots = [results.get(_run(claim, "pilot", name, data, limits, claim.rates[0]).name) for name in claim.compared]
    if any(result is None for result in pilots):
        return None
    return max((result["epochs"] for result in pilots if result and "epochs" in result), default=None)


def final_name(run: ClaimRun, results: Results) -> str:
    """Name of the result that stands for a compared run: its own, or its pilot's where that has the fixed length."""
    pilot = ClaimRun(run.claim, "pilot", run.variant, run.data, run.seed, run.rate, run.epochs, run.every).name
    same = run.seed == 0 and results.get(pilot, {}).get("epochs") == run.epochs
    return pilot if same and run.name not in results else run.name


def _run(claim: Claim, stage: Stage, variant: str, data: str, limits: DataLimits, rate: float) -> ClaimRun:
    epochs = math.ceil(limits.epochs / RATE_SHARE) if stage == "rate" else limits.epochs
    return ClaimRun(claim.number, stage, variant, data, 0, rate, epochs, 0 if stage == "rate" else limits.every)
