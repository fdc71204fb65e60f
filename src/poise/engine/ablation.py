"""Run an ablation: train every variant in its own folder, keep finished runs, report failed ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from poise.engine.ablation_table import RunNumbers, finished_run, write_tables
from poise.engine.health import OutOfMemory, TrainingDiverged
from poise.engine.locks import FolderInUse
from poise.engine.model import named_model
from poise.engine.run import RECIPE, train
from poise.recipes import Recipe, differences, load_recipe, to_dict
from poise.recipes.ablation import Ablation, PlannedRun

State = Literal["done", "failed", "locked", "open"]


@dataclass(frozen=True)
class RunState:
    """State of one planned run; ``numbers`` if it is done, ``reason`` if it failed."""

    run: PlannedRun
    state: State
    numbers: RunNumbers | None = None
    reason: str = ""


@dataclass(frozen=True)
class AblationResult:
    """All runs in their planned order, and the tables of the finished ones."""

    states: tuple[RunState, ...]
    markdown: Path
    csv: Path
    exit_code: int  # 0: all done; 1: some failed or are still open; 130 or 143: stopped by a signal

    def count(self, state: State) -> int:
        return sum(one.state == state for one in self.states)


def ablate(
    recipe: Recipe,
    ablation: Ablation,
    *,
    out: str | Path,
    device: str = "auto",
    progress_display: str = "auto",
    report: Callable[[str], None] = print,
) -> AblationResult:
    """Train every variant with every seed and keep ``table.md``, ``table.csv`` and ``runs.csv`` up to date.

    A finished run is not repeated, a stopped one is resumed exactly, and one that another process is training is
    skipped. So several processes that make the same call divide the runs among them.

    Args:
        recipe: the settings that all variants share.
        out: folder of the tables; each run is in ``out/VARIANT/seed-N``.
        device, progress_display: as for :func:`poise.engine.train`.
        report: called with a line of text about each run.

    Raises:
        ValueError: a setting or model option does not exist, or a folder has a run with other settings. All variants
            are checked before the first training.
    """
    folder = Path(out)
    runs = ablation.runs(recipe)
    for planned in runs:
        _check_folder(folder / planned.folder, planned)
    for planned in runs[: len(ablation.variants)]:
        _check_model(planned)
    states = [_state_of(folder, planned) for planned in runs]
    for number, planned in enumerate(runs):
        states[number] = _state_of(folder, planned)  # another process may have finished it
        if states[number].state == "done":
            continue
        report(f"run {number + 1} of {len(runs)}: {planned.variant}, seed {planned.seed}")
        states[number], signal_code = _train(planned, folder, device, progress_display)
        if states[number].reason:
            report(f"failed: {states[number].reason}")
        _write(folder, states)
        if signal_code:
            return _result(folder, states, signal_code)
    states = [_state_of(folder, one.run) if one.state == "locked" else one for one in states]
    return _result(folder, states, 0 if all(one.state == "done" for one in states) else 1)


def _train(planned: PlannedRun, folder: Path, device: str, progress_display: str) -> tuple[RunState, int]:
    """Train one run; return its state and the exit code of a signal that stopped it (0: none)."""
    try:
        result = train(
            planned.recipe,
            out=folder / planned.folder,
            resume=True,
            device=device,
            progress_display=progress_display,
        )
    except FolderInUse:
        return RunState(planned, "locked"), 0
    except (TrainingDiverged, OutOfMemory) as error:
        return RunState(planned, "failed", reason=str(error)), 0
    return _state_of(folder, planned), result.exit_code


def _state_of(folder: Path, planned: PlannedRun) -> RunState:
    numbers = finished_run(folder / planned.folder, planned.recipe)
    return RunState(planned, "open" if numbers is None else "done", numbers)


def _check_folder(folder: Path, planned: PlannedRun) -> None:
    """Raise ``ValueError`` if the folder has a run with other settings than the planned one."""
    if not (folder / RECIPE).exists():
        return
    before = load_recipe(folder / RECIPE)
    if before == planned.recipe:
        return
    changes = differences(to_dict(before), planned.recipe)
    differing = [f"{setting}: {there} there, {here} here" for setting, there, here in changes]
    raise ValueError(
        f"{folder} has a run with other settings ({'; '.join(differing)}): choose another --out or delete that folder"
    )


def _check_model(planned: PlannedRun) -> None:
    """Build the variant's model once, to find a wrong option before the first training."""
    try:
        named_model(planned.recipe.model, num_classes=1)
    except ValueError as error:
        raise ValueError(f"variant '{planned.variant}': {error}") from error


def _write(folder: Path, states: Sequence[RunState]) -> tuple[Path, Path]:
    """Write the tables of all finished runs, whichever process trained them."""
    current = [_state_of(folder, one.run) for one in states]
    done = {(one.run.variant, one.run.seed): one.numbers for one in current if one.numbers is not None}
    return write_tables(folder, list(dict.fromkeys(one.run.variant for one in states)), done)


def _result(folder: Path, states: Sequence[RunState], exit_code: int) -> AblationResult:
    markdown, csv = _write(folder, states)
    return AblationResult(tuple(states), markdown, csv, exit_code)
