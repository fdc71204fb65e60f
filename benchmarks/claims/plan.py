"""Plan the trainings of docs/claims.md: learning rates first, then a pilot, then the runs that are compared.

A plan is a function of the results so far. A run is due when the results that it depends on exist and its own does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from benchmarks.claims.claims import CLAIMS, LATER, ORDER, Claim, DataLimits, claim_of
from poise.recipes import Recipe, get_recipe, with_settings
from poise.recipes.ablation import plain_name
from poise.recipes.articles import TABLES

Stage = Literal["rate", "pilot", "final"]
Results = Mapping[str, Mapping[str, Any]]
PATIENCE = 0.3  # percentage points of validation AP
RATE_SHARE = 10  # the search for a rate takes one part in so many of the limit
MARGIN = 0.01  # test AP: a later variant that differs from its base by as much with one seed is trained with the others


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
    precision: str = "fp32"

    @property
    def name(self) -> str:
        """Path of its result below the folder of results, without the suffix."""
        variant = plain_name(self.variant)
        last = f"rate-{self.rate:g}" if self.stage == "rate" else f"{self.stage}-seed-{self.seed}"
        return f"{claim_of(self.claim).table}/{self.data}/{variant}/{last}"

    def recipe(self, path: str) -> Recipe:
        """The whole recipe of this run on the data at ``path``."""
        claim = claim_of(self.claim)
        table = TABLES[claim.table]
        changes = next(one.changes for one in table.ablation.variants if one.name == self.variant)
        rest: dict[str, Any] = {
            "data.path": path,
            "data.val": "val",
            "optimizer.lr": self.rate,
            "train.seed": self.seed,
            "train.precision": self.precision,
            "schedule.epochs": self.epochs,
            "evaluate.every": self.every,
        }
        if self.stage == "pilot":
            rest |= {"schedule.kind": "constant", "train.patience": PATIENCE}
        if self.stage != "rate":
            rest["train.lab_every"] = 100
        rest |= claim.limits_on(self.data).changes.get(self.variant, {})
        return with_settings(get_recipe(table.recipe), {**changes, **rest})


def due(results: Results, claims: Sequence[Claim] = (*CLAIMS, *LATER)) -> list[ClaimRun]:
    """Runs that can be trained now, in the given order; what has no inequality is last.

    The schemes of poise follow those of their claim, one after the other.
    """
    others = {(claim.number, variant) for claim in claims for variant in claim.others}
    own = [(claim.number, variant) for claim in claims for variant in claim.own + claim.tried]
    found = [run for claim in claims for run in _of_claim(claim, results) if run.name not in results]

    def urgency(run: ClaimRun) -> tuple[bool, int, int]:
        variant = run.claim, run.variant
        position = own.index(variant) if variant in own else -1
        return variant in others, ORDER.index((run.claim, run.data)), position

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
        own = claim.own_on(data)
        for variant in own:
            yield from _rates(claim, variant, data, limits)
        yield from _finals(claim, data, limits, own, claim.seeds, results)
        for variant in claim.later:
            yield from _rates(claim, variant, data, limits)
            yield from _finals(claim, data, limits, [variant], _later_seeds(claim, variant, data, results), results)
        if data == claim.data[0]:
            for variant in claim.others:
                yield from _rates(claim, variant, data, limits)
            yield from _finals(claim, data, limits, claim.others, claim.seeds[:1], results)


def _later_seeds(claim: Claim, variant: str, data: str, results: Results) -> tuple[int, ...]:
    """One seed, and the others where its test AP differs from that of the base by the margin."""
    seed = claim.seeds[0]
    found = [final_of(claim, name, data, seed, results) for name in (variant, claim.later[variant])]
    scores = [results[name]["test"]["ap"] for name in found if name]
    differs = len(scores) == 2 and abs(scores[0] - scores[1]) >= MARGIN
    return claim.seeds if differs else claim.seeds[:1]


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
                yield ClaimRun(claim.number, "final", variant, data, seed, rate, epochs, limits.every, limits.precision)


def best_rate(claim: Claim, variant: str, data: str, results: Results) -> float | None:
    """The rate with the best validation AP, once all have been tried; failed runs do not count."""
    limits = claim.limits_on(data)
    tried = [results.get(run.name) for run in _rates(claim, variant, data, limits)]
    if any(result is None for result in tried):
        return None
    scores = [(result or {}).get("val_ap", -1.0) for result in tried]
    return claim.rates[scores.index(max(scores))] if max(scores) >= 0 else None


def fixed_epochs(claim: Claim, data: str, results: Results) -> int | None:
    """Epochs of every run that is compared: those of the longest pilot, once all pilots have ended."""
    if claim.base is not None:
        return fixed_epochs(claim_of(claim.base), data, results)
    limits = claim.limits_on(data)
    pilots = [results.get(_run(claim, "pilot", name, data, limits, claim.rates[0]).name) for name in claim.compared]
    if any(result is None for result in pilots):
        return None
    return max((result["epochs"] for result in pilots if result and "epochs" in result), default=None)


def final_of(claim: Claim, variant: str, data: str, seed: int, results: Results) -> str | None:
    """Name of the finished run of a variant that has the fixed length; a base that the group lacks is its claim's."""
    if variant not in (*claim.variants_on(data), *claim.others):
        return None if claim.base is None else final_of(claim_of(claim.base), variant, data, seed, results)
    epochs, rate = fixed_epochs(claim, data, results), best_rate(claim, variant, data, results)
    if epochs is None or rate is None:
        return None
    limits = claim.limits_on(data)
    run = ClaimRun(claim.number, "final", variant, data, seed, rate, epochs, limits.every, limits.precision)
    name = final_name(run, results)
    return name if "test" in results.get(name, {}) else None


def final_name(run: ClaimRun, results: Results) -> str:
    """Name of the result that stands for a compared run: its own, or its pilot's where that has the fixed length."""
    pilot = replace(run, stage="pilot").name
    same = run.seed == 0 and results.get(pilot, {}).get("epochs") == run.epochs
    return pilot if same and run.name not in results else run.name


def _run(claim: Claim, stage: Stage, variant: str, data: str, limits: DataLimits, rate: float) -> ClaimRun:
    epochs = math.ceil(limits.epochs / RATE_SHARE) if stage == "rate" else limits.epochs
    every = 0 if stage == "rate" else limits.every
    return ClaimRun(claim.number, stage, variant, data, 0, rate, epochs, every, limits.precision)
