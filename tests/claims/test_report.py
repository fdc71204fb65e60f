"""Tables and verdicts of made-up results, and the committed tables of the real ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.sources import ROOT

from benchmarks.claims.bootstrap import Interval, paired_interval
from benchmarks.claims.claims import CLAIMS, CLASSES, LATER, Claim, DataLimits, claim_of, statements
from benchmarks.claims.matches import IOUS, Matches
from benchmarks.claims.plan import due
from benchmarks.claims.report import (
    PAGES,
    claim_rows,
    class_precisions,
    compared_runs,
    curves,
    filled,
    finals,
    finished_rows,
    hours,
    intervals,
    replaced,
    verdict_rows,
)
from benchmarks.claims.run import METRICS, read_results
from poise.evaluate.bootstrap import average_precision

FOLDER = ROOT / "docs" / "claims"
RESULTS = read_results(FOLDER / "results")
KEPT = json.loads((FOLDER / "intervals.json").read_text(encoding="utf-8"))
MEASURED = {name: Interval(**numbers) for name, numbers in KEPT.items()}
CLAIM = Claim(1, ("DW", "VarifocalNet", "ATSS", "FCOS"), ("TOOD",), ("bccd",), limits=(DataLimits(40, 2),))


def matches(right: float, seed: int) -> Matches:
    """Forty images with one object and one detection each, of which a share is right."""
    rng = np.random.default_rng(seed)
    found = np.repeat((rng.random(40) < right)[:, None], len(IOUS), 1)
    images = rng.permutation(40).astype(np.uint16)
    return Matches(images, np.zeros(40, np.uint8), found, np.zeros_like(found), np.ones((40, 1), np.uint16))


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """Results of every run; DW is right far more often than VarifocalNet, the others alike."""
    results: dict[str, Any] = {}
    fractions = {"DW": 0.9, "VarifocalNet": 0.3}
    while runs := due(results, [CLAIM]):
        for run in runs:
            share = fractions.get(run.variant, 0.3)
            result = {"claim": 1, "variant": run.variant, "data": run.data, "rate": run.rate, "cpu_minutes": 6.0}
            result |= {
                "val_ap": share,
                "epochs": run.epochs,
                "steps": 26 * run.epochs,
                "curve": [[26, 0.1], [52, share]],
            }
            if run.stage != "rate":
                result["test"] = dict.fromkeys(METRICS, share)
                result["lab"] = {"dense/positives": 4.0 + run.seed, "dense/entropy": 1.5}
                result["still_rising"] = run.stage == "pilot" and run.variant == "FCOS"
                matches(share, run.seed).save(tmp_path / f"{run.name}.npz")
            results[run.name] = result
    return tmp_path, results


def test_verdicts(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, results = finished
    measured = intervals(folder, results, [CLAIM])
    rows = [row.split(" | ") for row in verdict_rows(measured, results, [CLAIM])][2:]
    assert [row[0] for row in rows] == [
        "| (1) DW over VarifocalNet",
        "| (1) VarifocalNet over ATSS",
        "| (1) ATSS over FCOS",
    ]
    assert [row[-1].partition(":")[0] for row in rows] == ["**shown**", "**not shown**", "**not shown**"]
    names = compared_runs(CLAIM, "VarifocalNet", "DW", "bccd", results)
    runs = [Matches.load(folder / f"{name}.npz") for name in names]
    assert len(names) == 6 and paired_interval(runs[:3], runs[3:]).verdict == "opposite"


def test_the_step_at_which_the_plain_detectors_end_is_reached() -> None:
    claim, curves_of = (
        CLAIMS[[one.number for one in CLAIMS].index(5)],
        ((0.1, 0.3), (0.35, 0.4), (0.2, 0.25), (0.1, 0.3)),
    )
    results: dict[str, Any] = {}
    while runs := due(results, [claim]):
        for run in runs:
            curve = curves_of[claim.compared.index(run.variant)]
            result = {"variant": run.variant, "data": run.data, "rate": run.rate, "cpu_minutes": 1.0, "steps": 20}
            result |= {"val_ap": curve[-1], "epochs": run.epochs, "curve": [[10, curve[0]], [20, curve[1]]]}
            lab = {"queries/churn": 0.25, "encoder/contrast": 0.75}
            results[run.name] = result | {"test": dict.fromkeys(METRICS, 0.3), "lab": lab}
    text = "\n".join(claim_rows(claim, results, {}))
    plain, one, two, twice = claim.compared
    assert f"the AP reaches 30.0, where {plain} ends:" in text
    assert f"| {plain} | 20 |\n| {one} | 10 |\n| {two} | never |\n| {twice} | 20 |" in text
    assert f"| {plain} | - | - | - | - | - | - | - | 0.25 | 0.75 |" in text


def test_an_interval_is_computed_again_where_its_matches_changed(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, results = finished
    first = intervals(folder, results, [CLAIM])
    kept = {name: replace(found, difference=77.0) for name, found in first.items()}
    matches(0.8, 9).save(folder / f"{compared_runs(CLAIM, 'DW', 'VarifocalNet', 'bccd', results)[0]}.npz")
    again = intervals(folder, results, [CLAIM], kept)
    assert [found.difference == 77.0 for found in again.values()] == [False, True, True]


def test_a_missing_seed_is_not_finished(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, results = finished
    name = finals(CLAIM, "ATSS", "bccd", results)[2][0]
    del results[name]
    rows = list(verdict_rows(intervals(folder, results, [CLAIM]), results, [CLAIM]))
    assert rows[3].endswith("| not finished: 5 of 6 runs |") and "| **shown**: +" in rows[2]
    assert "| ATSS | 30.0 ± 0.0 |" in "\n".join(claim_rows(CLAIM, results, {})), "two seeds are in the table"


def test_a_later_scheme_has_one_seed_until_it_differs_from_its_base(tmp_path: Path) -> None:
    group = LATER[-1]
    assert group.base is not None
    base, results = claim_of(group.base), {}
    shares = {"Seesaw": 0.9, "effective number": 0.304}
    while runs := due(results, [base, group]):
        for run in runs:
            share = shares.get(run.variant, 0.3)
            result = {"variant": run.variant, "data": run.data, "epochs": run.epochs, "steps": 10, "rate": run.rate}
            test, minutes = dict.fromkeys(METRICS, share), 3.0 if run.variant == "EQL v2" else 2.0
            results[run.name] = result | {"val_ap": share, "test": test, "lab": {}, "cpu_minutes": minutes}
            matches(share, run.seed).save(tmp_path / f"{run.name}.npz")
    rows = list(verdict_rows(intervals(tmp_path, results, [group]), results, [group]))
    assert rows[0] == "| scheme | bccd | CPU time, ratio |"
    assert rows[2].startswith("| Seesaw over Faster R-CNN | **shown**: +") and rows[2].endswith(" | 1.00 |")
    assert rows[3] == "| EQL v2 over Faster R-CNN | +0.0, one seed | 1.50 |"
    assert rows[4] == "| effective number over Faster R-CNN | +0.4, one seed | 1.00 |"
    table = list(claim_rows(group, results, {}))
    assert [row.split(" | ")[0] for row in table if " | 10 | " in row] == [
        f"| {name}" for name in ("Faster R-CNN", "Seesaw", "EQL v2", "effective number")
    ]
    for name in [name for name in results if "/Seesaw/final" in name]:
        del results[name]
    assert list(verdict_rows({}, results, [group]))[2] == "| Seesaw over Faster R-CNN | not finished |  |"


def test_tables(finished: tuple[Path, dict[str, Any]]) -> None:
    _, results = finished
    text = "\n".join(claim_rows(CLAIM, results, {}))
    assert "| DW | 90.0 ± 0.0 | 90.0 ± 0.0 |" in text and "| 1040 | 6 | 3 | 0.001 |  |" in text
    assert "| TOOD | 30.0 | 30.0 |" in text, "one seed has no spread"
    assert next(line for line in text.splitlines() if line.startswith("| FCOS")).endswith("| still rising |")
    assert "| scheme | 0.001 | 0.002 | 0.004 |" in text
    assert "| DW | 5.00 | - | - | - | - | 1.50 | - |" in text, "the mean of three seeds, and what the lab did not see"
    assert hours(results).startswith(f"CPU hours so far: (1) {0.1 * len(results):.1f},")


def test_a_failed_run_is_named_and_the_table_made_without_it(finished: tuple[Path, dict[str, Any]]) -> None:
    _, results = finished
    for name in [name for name in results if "/TOOD/" in name]:
        results[name] = {"claim": 1, "variant": "TOOD", "data": "bccd", "failed": "loss is NaN", "cpu_minutes": 1.0}
    row = next(line for line in claim_rows(CLAIM, results, {}) if line.startswith("| TOOD"))
    assert "4 runs failed: loss is NaN" in row
    assert "| TOOD | failed | failed | failed |" in "\n".join(claim_rows(CLAIM, results, {}))


def test_classes_have_their_ap(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, results = finished
    name = finals(CLAIM, "DW", "bccd", results)[0][0]
    [precision] = class_precisions(folder, results)[name]
    assert precision == pytest.approx(average_precision(Matches.load(folder / f"{name}.npz"), np.ones(40)))
    classes = {finals(CLAIM, "DW", "bccd", results)[seed][0]: [0.1, 0.2 * seed, 0.9] for seed in (0, 1, 2)}
    text = "\n".join(claim_rows(CLAIM, results, classes))
    assert "| scheme | Platelets | RBC | WBC |\n|---|---:|---:|---:|\n| DW | 10.0 | 20.0 | 90.0 |\n\n" in text


def test_the_classes_average_to_the_ap_of_each_run() -> None:
    for name, values in class_precisions(FOLDER / "results", RESULTS).items():
        result = RESULTS[name]
        assert len(values) == len(CLASSES[result["data"]])
        assert np.mean(values) == pytest.approx(result["test"]["ap"], abs=1e-5), name


def test_curves_are_drawn(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    curves(finished[1], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_the_documents_verdicts_are_those_of_the_results() -> None:
    classes = class_precisions(FOLDER / "results", RESULTS)
    for name, claims in PAGES.items():
        page = (ROOT / "docs" / name).read_text(encoding="utf-8")
        made = filled(page, RESULTS, MEASURED, classes, claims)
        assert page == made, "python -m benchmarks.claims.report --docs docs brings the page up to date"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == replaced(readme, "verdicts", finished_rows(MEASURED, RESULTS)), "--readme README.md does"
    with pytest.raises(ValueError, match="<!-- verdicts -->"):
        filled("a page", RESULTS, MEASURED, classes)


def test_kept_differences_are_those_of_the_results() -> None:
    """The difference of mean test AP, which each run's evaluation gave, and none is missing."""
    count = 0
    for claim in (*CLAIMS, *LATER):
        for better, worse in statements(claim):
            for data in claim.data:
                sides = [finals(claim, name, data, RESULTS) for name in (better, worse)]
                kept = MEASURED.get(f"{claim.table}/{data}/{better} over {worse}")
                assert (kept is not None) == all(set(side) == set(claim.seeds) for side in sides)
                if kept is not None:
                    means = [np.mean([run["test"]["ap"] for _, run in side.values()]) for side in sides]
                    assert kept.difference == pytest.approx(100 * (means[0] - means[1]), abs=0.01)
                    count += 1
    assert count == len(MEASURED)
