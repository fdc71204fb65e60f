"""Many trainings for one table: each in its folder, those that are done are left alone, broken ones are told."""

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

State = Literal["done", "failed", "elsewhere", "open"]


@dataclass(frozen=True)
class RunState:
    """What became of one planned run; ``numbers`` where it is done, ``reason`` where it failed."""

    run: PlannedRun
    state: State
    numbers: RunNumbers | None = None
    reason: str = ""


@dataclass(frozen=True)
class AblationResult:
    """All runs in their planned order, and the tables made of those that are done."""

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
    say: Callable[[str], None] = print,
) -> AblationResult:
    """Train every variant with every seed and keep ``table.md``, ``table.csv`` and ``runs.csv`` up to date.

    A run that is done is not repeated, one that was stopped is resumed exactly, and one that another process works on
    is left to it: so the same call, made several times at once, shares the work.

    Args:
        recipe: what the variants vary.
        out: folder of the tables; each run is in ``out/VARIANT/seed-N``.
        device, progress_display: as for :func:`poise.engine.train`.
        say: is told what happens between the runs.

    Raises:
        ValueError: a setting or model option that does not exist, or a folder with a run of other settings; all of
            them are looked at before the first training.
    """
    folder = Path(out)
    runs = ablation.runs(recipe)
    for planned in runs:
        _check_folder(folder / planned.folder, planned)
    for planned in runs[: len(ablation.variants)]:
        _check_model(planned)
    states = [_found(folder, planned) for planned in runs]
    for number, planned in enumerate(runs):
        states[number] = _found(folder, planned)  # another process may have done it meanwhile
        if states[number].state == "done":
            continue
        say(f"run {number + 1} of {len(runs)}: {planned.variant}, seed {planned.seed}")
        states[number], signal_code = _train(planned, folder, device, progress_display)
        if states[number].reason:
            say(f"failed: {states[number].reason}")
        _write(folder, states)
        if signal_code:
            return _result(folder, states, signal_code)
    states = [_found(folder, one.run) if one.state == "elsewhere" else one for one in states]
    return _result(folder, states, 0 if all(one.state == "done" for one in states) else 1)


def _train(planned: PlannedRun, folder: Path, device: str, progress_display: str) -> tuple[RunState, int]:
    """The run's state after training, and the exit code of a signal that ended it (0: none)."""
    try:
        result = train(
            planned.recipe,
            out=folder / planned.folder,
            resume=True,
            device=device,
            progress_display=progress_display,
        )
    except FolderInUse:
        return RunState(planned, "elsewhere"), 0
    except (TrainingDiverged, OutOfMemory) as error:
        return RunState(planned, "failed", reason=str(error)), 0
    return _found(folder, planned), result.exit_code


def _found(folder: Path, planned: PlannedRun) -> RunState:
    numbers = finished_run(folder / planned.folder, planned.recipe)
    return RunState(planned, "open" if numbers is None else "done", numbers)


def _check_folder(folder: Path, planned: PlannedRun) -> None:
    """Refuse a folder whose run has other settings than the planned one."""
    if not (folder / RECIPE).exists():
        return
    before = load_recipe(folder / RECIPE)
    if before == planned.recipe:
        return
    found = differences(to_dict(before), planned.recipe)
    differing = [f"{setting}: {there} there, {here} here" for setting, there, here in found]
    raise ValueError(
        f"{folder} holds a run with other settings ({'; '.join(differing)}): choose another --out or delete that folder"
    )


def _check_model(planned: PlannedRun) -> None:
    """Build the variant's model once, so that a wrong option is found before the first training."""
    try:
        named_model(planned.recipe.model, num_classes=1)
    except ValueError as error:
        raise ValueError(f"variant '{planned.variant}': {error}") from error


def _write(folder: Path, states: Sequence[RunState]) -> tuple[Path, Path]:
    """The tables of all runs that are done, whoever did them."""
    found = [_found(folder, one.run) for one in states]
    done = {(one.run.variant, one.run.seed): one.numbers for one in found if one.numbers is not None}
    return write_tables(folder, list(dict.fromkeys(one.run.variant for one in states)), done)


def _result(folder: Path, states: Sequence[RunState], exit_code: int) -> AblationResult:
    markdown, csv = _write(folder, states)
    return AblationResult(tuple(states), markdown, csv, exit_code)
