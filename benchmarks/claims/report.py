"""Write the verdicts, tables and learning curves of docs/claims.md and docs/later_schemes.md from the result files.

    python -m benchmarks.claims.report --docs docs --readme README.md

Replaces what stands between ``<!-- NAME -->`` and ``<!-- end -->`` for the names verdicts, hours, claim 1 to 6, and the
groups of later works; the rest of the pages is written by hand. Draws ``docs/claims/curves.png``
and keeps the intervals in ``intervals.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.claims.bootstrap import NOT_FINISHED, Interval, paired_interval
from benchmarks.claims.claims import CLAIMS, CLASSES, LATER, Claim, statements
from benchmarks.claims.matches import Matches
from benchmarks.claims.plan import ClaimRun, Results, final_of
from benchmarks.claims.run import METRICS, read_results
from poise.evaluate.bootstrap import class_precision

PAGES = {"claims.md": CLAIMS, "later_schemes.md": LATER}
TITLES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "APs", "ap_medium": "APm", "ap_large": "APl"}
SEEN = {
    "positives": "positives an object",
    "positives_small": "small",
    "positives_medium": "medium",
    "positives_large": "large",
    "without_positive": "objects without",
    "entropy": "entropy of weights",
    "score_iou_correlation": "score-IoU correlation",
    "churn": "churn",
    "contrast": "contrast",
}


def finals(claim: Claim, variant: str, data: str, results: Results) -> dict[int, tuple[str, Mapping[str, Any]]]:
    """Seed to name and result of the finished runs of a variant that have the fixed length."""
    names = {seed: final_of(claim, variant, data, seed, results) for seed in claim.seeds}
    return {seed: (name, results[name]) for seed, name in names.items() if name}


def compared_runs(claim: Claim, better: str, worse: str, data: str, results: Results) -> list[str]:
    """Names of the runs of both sides, seed by seed; empty while a seed of either scheme is missing."""
    sides = [finals(claim, name, data, results) for name in (better, worse)]
    if any(set(side) != set(claim.seeds) for side in sides):
        return []
    return [side[seed][0] for side in sides for seed in claim.seeds]


def intervals(
    folder: Path,
    results: Results,
    claims: Sequence[Claim] = (*CLAIMS, *LATER),
    kept: Mapping[str, Interval] | None = None,
) -> dict[str, Interval]:
    """The intervals of all inequalities whose runs are complete.

    Args:
        kept: what an earlier call returned; an interval whose matches are the same is taken from it.
    """
    found: dict[str, Interval] = {}
    for claim in claims:
        for better, worse in statements(claim):
            for data in claim.data:
                if not (names := compared_runs(claim, better, worse, data, results)):
                    continue
                files = [folder / f"{name}.npz" for name in names]
                digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
                known = (kept or {}).get(_key(claim, better, worse, data))
                if known is None or known.matches != digest:
                    runs = [Matches.load(file) for file in files]
                    half = len(runs) // 2
                    known = replace(paired_interval(runs[:half], runs[half:]), matches=digest)
                found[_key(claim, better, worse, data)] = known
    return found


def _key(claim: Claim, better: str, worse: str, data: str) -> str:
    return f"{claim.table}/{data}/{better} over {worse}"


def verdict_rows(measured: Mapping[str, Interval], results: Results, claims: Sequence[Claim] = CLAIMS) -> Iterator[str]:
    """A row for every inequality, a column for every data set; of later works also the ratio of CPU times."""
    names = list(dict.fromkeys(data for claim in claims for data in claim.data))
    later = any(claim.later for claim in claims)
    heads = ["scheme" if later else "claim", *names, *(["CPU time, ratio"] if later else [])]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for claim in sorted(claims, key=lambda one: one.number):
        for better, worse in statements(claim):
            cells = [_verdict(claim, better, worse, data, measured, results) for data in names]
            number = "" if claim.later else f"({claim.number}) "
            cells += [_cost(claim, better, worse, results)] if later else []
            yield f"| {number}{better} over {worse} | {' | '.join(cells)} |"


def _cost(claim: Claim, better: str, worse: str, results: Results) -> str:
    """CPU minutes of a training over those of the other; both take the same steps."""
    sides = [finals(claim, name, claim.data[0], results).values() for name in (better, worse)]
    if not all(sides):
        return ""
    ours, theirs = (statistics.mean(result["cpu_minutes"] for _, result in side) for side in sides)
    return f"{ours / theirs:.2f}"


def finished_rows(measured: Mapping[str, Interval], results: Results) -> str:
    """The rows of the verdicts of which at least one data set is finished, and how many others there are."""
    head, rule, *rows = verdict_rows(measured, results)
    kept = [row for row in rows if "**" in row]
    rest = len(rows) - len(kept)
    note = f"\n\n{rest} further inequalities are not finished." if rest else ""
    return "\n".join([head, rule, *kept]) + note


def _verdict(
    claim: Claim, better: str, worse: str, data: str, measured: Mapping[str, Interval], results: Results
) -> str:
    """The verdict with the difference of AP, its interval and the smallest difference that would show."""
    if data not in claim.data or not {better, worse} <= {*claim.variants_on(data), *claim.later.values()}:
        return ""
    found = measured.get(_key(claim, better, worse, data))
    if found is None:
        sides = [finals(claim, name, data, results) for name in (better, worse)]
        if claim.later:
            if not all(sides):
                return NOT_FINISHED
            first, second = (100 * side[claim.seeds[0]][1]["test"]["ap"] for side in sides)
            return f"{first - second:+.1f}, one seed"
        done = sum(map(len, sides))
        return f"{NOT_FINISHED}: {done} of {2 * len(claim.seeds)} runs"
    bounds = f"{found.difference:+.1f} ({found.low:+.1f} to {found.high:+.1f})"
    return f"**{found.verdict}**: {bounds}; would show from {found.smallest:.1f}"


def class_precisions(folder: Path, results: Results) -> dict[str, list[float]]:
    """AP of each class on the test split, by the name of the run."""
    found = {}
    for name, result in results.items():
        if "test" in result:
            matches = Matches.load(folder / f"{name}.npz")
            found[name] = class_precision(matches, np.ones(len(matches.objects))).tolist()
    return found


def claim_rows(claim: Claim, results: Results, classes: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """The tables of one claim: all variants on each data set, and the rates that were tried.

    Args:
        claim: the claim or group.
        results: of all runs.
        classes: AP of each class, by the name of the run.
    """
    for data in claim.data:
        variants = claim.variants_on(data) + (claim.others if data == claim.data[0] else ())
        if not any(finals(claim, variant, data, results) for variant in variants):
            continue
        variants = tuple(dict.fromkeys((*claim.later.values(), *variants)))
        yield f"\n### {data}, test split\n"
        yield "| scheme | AP | AP50 | AP75 | APs | APm | APl | steps | CPU minutes | seeds | rate | |"
        yield "|---|" + "---:|" * 10 + "---|"
        for variant in variants:
            yield _row(claim, variant, data, results)
        yield "\nAP of the classes, mean over seeds:\n"
        yield f"| scheme | {' | '.join(CLASSES[data])} |"
        yield "|---|" + "---:|" * len(CLASSES[data])
        for variant in variants:
            values = [classes[name] for name, _ in finals(claim, variant, data, results).values() if name in classes]
            if values:
                yield f"| {variant} | {' | '.join(f'{100 * ap:.1f}' for ap in np.mean(values, 0))} |"
        yield "\nAssignment in the last tenth of training (docs/lab.md), mean over seeds:\n"
        yield f"| scheme | {' | '.join(SEEN.values())} |"
        yield "|---|" + "---:|" * len(SEEN)
        for variant in variants:
            yield from _seen_row(variant, [result for _, result in finals(claim, variant, data, results).values()])
        if claim.number == 5:
            yield from _first_steps(claim, data, results)
        yield f"\nValidation AP of the rates that were tried on {data}:\n"
        yield "| scheme | " + " | ".join(f"{rate:g}" for rate in claim.rates) + " |"
        yield "|---|" + "---:|" * len(claim.rates)
        for variant in variants:
            cells = [_tried(claim, variant, data, rate, results) for rate in claim.rates]
            yield f"| {variant} | {' | '.join(cells)} |"


def _row(claim: Claim, variant: str, data: str, results: Results) -> str:
    runs = [result for _, result in finals(claim, variant, data, results).values()]
    failed = [r["failed"] for n, r in results.items() if "failed" in r and (r["variant"], r["data"]) == (variant, data)]
    note = f"{len(failed)} runs failed: {failed[0]}" if failed else ""
    if not runs:
        return f"| {variant} | " + "- | " * 10 + f"{note or NOT_FINISHED} |"
    cells = [_spread([100 * run["test"][name] for run in runs if run["test"][name] is not None]) for name in METRICS]
    rising = "still rising" if any(run.get("still_rising") for run in runs) else ""
    minutes = statistics.mean(run["cpu_minutes"] for run in runs)
    rest = f"{runs[0]['steps']} | {minutes:.0f} | {len(runs)} | {runs[0]['rate']:g}"
    return f"| {variant} | {' | '.join(cells)} | {rest} | {'; '.join(filter(None, (rising, note)))} |"


def _seen_row(variant: str, runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What the lab saw, of the stage that is looked at first, and the encoder's contrast; no row without numbers."""
    stages = [key.rpartition("/")[0] for run in runs for key in run["lab"] if not key.endswith("/contrast")]
    if stages:
        keys = [f"{'encoder' if name == 'contrast' else stages[0]}/{name}" for name in SEEN]
        values = [[run["lab"].get(key) for run in runs] for key in keys]
        known = [[value for value in column if value is not None] for column in values]
        yield f"| {variant} | {' | '.join(f'{statistics.mean(c):.2f}' if c else '-' for c in known)} |"


def _first_steps(claim: Claim, data: str, results: Results) -> Iterator[str]:
    """The step at which each variant's validation AP first reaches what the plain detector ends with."""
    plain = finals(claim, claim.compared[0], data, results)
    if not plain:
        return
    goal = statistics.mean(result["val_ap"] for _, result in plain.values())
    yield f"\nFirst validation at which the AP reaches {100 * goal:.1f}, where {claim.compared[0]} ends:\n"
    yield "| scheme | step |\n|---|---:|"
    for variant in claim.compared:
        curves = [result["curve"] for _, result in finals(claim, variant, data, results).values()]
        steps = [next((step for step, ap in curve if ap >= goal), None) for curve in curves]
        if steps:
            yield f"| {variant} | {', '.join('never' if step is None else str(step) for step in steps)} |"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _tried(claim: Claim, variant: str, data: str, rate: float, results: Results) -> str:
    result = results.get(ClaimRun(claim.number, "rate", variant, data, 0, rate, 1, 0).name, {})
    return "failed" if "failed" in result else f"{100 * result['val_ap']:.1f}" if result else "-"


def curves(results: Results, path: Path) -> None:
    """Validation AP against the step: a panel for each claim and data set, a color for each scheme."""
    panels = [(claim, data) for claim in CLAIMS for data in claim.data if _curves_of(claim, data, results)]
    if not panels:
        return
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure((4.2 * columns, 3.2 * rows), layout="constrained")
    for number, (claim, data) in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, number)
        for variant, lines in _curves_of(claim, data, results).items():
            [first, *others] = [
                axes.plot([step for step, _ in line], [100 * ap for _, ap in line], lw=1, label=variant)
                for line in lines
            ]
            for other in others:
                other[0].set(color=first[0].get_color(), label="_nolegend_")
        axes.set(title=f"claim {claim.number}, {data}", xlabel="step", ylabel="validation AP")
        axes.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=110)


def _curves_of(claim: Claim, data: str, results: Results) -> dict[str, list[list[list[float]]]]:
    """Curves of the compared runs of each variant, or of its pilot before the length is fixed."""
    found: dict[str, list[list[list[float]]]] = {}
    for variant in claim.compared:
        lines = [result["curve"] for _, result in finals(claim, variant, data, results).values()]
        pilot = results.get(ClaimRun(claim.number, "pilot", variant, data, 0, 1.0, 1, 1).name, {})
        if lines or "curve" in pilot:
            found[variant] = lines or [pilot["curve"]]
    return found


def hours(results: Results, claims: Sequence[Claim] = CLAIMS) -> str:
    """CPU hours of each claim or group so far."""
    spent = {_title(claim): 0.0 for claim in sorted(claims, key=lambda one: one.number)}
    for claim in claims:
        spent[_title(claim)] += sum(one["cpu_minutes"] for one in results.values() if one["claim"] == claim.number) / 60
    total = sum(spent.values())
    return f"CPU hours so far: {', '.join(f'{k} {v:.1f}' for k, v in spent.items())}; {total:.1f} in all."


def _title(claim: Claim) -> str:
    return claim.name or f"({claim.number})"


def filled(
    page: str,
    results: Results,
    measured: Mapping[str, Interval],
    classes: Mapping[str, Sequence[float]],
    claims: Sequence[Claim] = CLAIMS,
) -> str:
    """The page of these claims with its generated parts made anew; arguments as of ``claim_rows``."""
    parts = {"verdicts": "\n".join(verdict_rows(measured, results, claims)), "hours": hours(results, claims)}
    parts |= {claim.table.replace("_", " "): "\n".join(claim_rows(claim, results, classes)).strip() for claim in claims}
    for name, text in parts.items():
        page = replaced(page, name, text or "No result yet.")
    return page


def replaced(page: str, name: str, text: str) -> str:
    """The page with ``text`` between ``<!-- name -->`` and ``<!-- end -->``."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"the page lacks '<!-- {name} -->' followed by '<!-- end -->'")
    return pattern.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, required=True, help="folder of the pages; results in claims/results")
    parser.add_argument("--readme", type=Path, help="page that shows the finished verdicts alone")
    args = parser.parse_args()
    folder = args.docs / "claims"
    results = read_results(folder / "results")
    file = folder / "intervals.json"
    earlier = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    measured = intervals(folder / "results", results, kept={name: Interval(**one) for name, one in earlier.items()})
    kept = {name: asdict(found) for name, found in measured.items()}
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    classes = class_precisions(folder / "results", results)
    for name, claims in PAGES.items():
        page = args.docs / name
        page.write_text(filled(page.read_text(encoding="utf-8"), results, measured, classes, claims), encoding="utf-8")
    if args.readme:
        shown = replaced(args.readme.read_text(encoding="utf-8"), "verdicts", finished_rows(measured, results))
        args.readme.write_text(shown, encoding="utf-8")
    curves(results, folder / "curves.png")


if __name__ == "__main__":
    main()
