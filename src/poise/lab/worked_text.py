"""A worked example of an assignment as text for the terminal, and as plain data for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from poise.lab.worked_example import Step, WorkedExample, sequence
from poise.suggestions import plural

MAX_ROWS = 12  # candidates of the object that is shown in detail, and conflicts
MAX_OBJECTS = 40  # lines of the table of objects
MAX_VALUES = 200_000  # of a tensor in JSON


def default_object(example: WorkedExample) -> int:
    """Return the object that is shown in detail: the one with most conflicts, then with most positives."""
    positives = example.positives()
    conflicts = [sum(m in one.objects for one in example.conflicts) for m in range(example.num_objects)]
    return max(range(example.num_objects), key=lambda m: (conflicts[m], positives[m], -m), default=-1)


def to_text(example: WorkedExample, number: int, class_names: Sequence[str]) -> str:
    """Describe every tensor, the objects, the candidates of object ``number`` (-1: of none), conflicts and result."""
    parts = [sizes_text(example), _tensors(example)]
    if example.num_objects:
        parts += [_objects(example, class_names), _candidates(example, number, class_names), conflicts_text(example)]
    return "\n\n".join([*parts, result_text(example)])


def sizes_text(example: WorkedExample) -> str:
    """Describe the assigner and the sizes of the problem."""
    priors, (height, width) = example.predictions.priors, example.truth.sizes[0].tolist()
    levels = f" on L = {plural(len(priors.level_sizes), 'level')}" if len(priors.level_sizes) > 1 else ""
    return (
        f"{example.assigner}\n{example.about}\n"
        f"input {width:.0f} x {height:.0f} px, M = {plural(example.num_objects, 'object')}, "
        f"N = {example.predictions.logits.shape[1]} priors{levels}, V = {len(example.columns)} of them matter, "
        f"C = {plural(example.predictions.logits.shape[2], 'class')}"
    )


def _tensors(example: WorkedExample) -> str:
    rows = [("tensor", "shape", "values", "what it is")]
    rows += [(name, step.shape, _range(step), f"{step.title}: {step.formula}") for name, step in example.steps.items()]
    return columns_text(rows)


def _range(step: Step) -> str:
    values = step.values
    if values.dtype == torch.bool:
        return f"{int(values.sum())} true"
    finite = values[values.isfinite()].float()
    if not len(finite):
        return "none finite" if values.numel() else "none"
    return f"{number_text(float(finite.min()))} to {number_text(float(finite.max()))}"


def object_columns(example: WorkedExample) -> list[str]:
    """Names of the steps with one number for each object."""
    return [name for name, step in example.steps.items() if step.axes == "M"]


def object_rows(example: WorkedExample, class_names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return a head and a row for each object."""
    columns, positives = object_columns(example), example.positives()
    rows: list[tuple[str, ...]] = [("object", "class", "box, px", *columns, "takes", "positives")]
    for m in range(example.num_objects):
        box = " ".join(f"{side:.0f}" for side in example.truth.boxes[0, m].tolist())
        numbers = [number_text(float(example.steps[name].values[m])) for name in columns]
        label = class_names[int(example.truth.labels[0, m])]
        rows.append((str(m), label, box, *numbers, str(int(example.taken[m].sum())), str(positives[m])))
    return rows


def _objects(example: WorkedExample, class_names: Sequence[str]) -> str:
    more = example.num_objects - MAX_OBJECTS
    text = columns_text(object_rows(example, class_names)[: MAX_OBJECTS + 1])
    return text + (f"\n… and {plural(more, 'more object')} (--json lists all)" if more > 0 else "")


def _candidates(example: WorkedExample, number: int, class_names: Sequence[str]) -> str:
    listed = example.candidates(number)
    name = class_names[int(example.truth.labels[0, number])]
    order = "lowest" if example.ascending else "highest"
    head = f"object {number} ({name}): {plural(len(listed), 'candidate')}, those that it takes first, "
    return f"{head}then by {order} {example.rank}\n{columns_text(candidate_rows(example, number))}"


def candidate_rows(example: WorkedExample, number: int) -> list[tuple[str, ...]]:
    """Return a head and a row for each of an object's best candidates."""
    names = [name for name, step in example.steps.items() if step.axes == "MV" and name != "taken"]
    rows: list[tuple[str, ...]] = [("prior", "stride", "x", "y", *names, "taken", "assigned to")]
    priors = example.predictions.priors
    for column in example.candidates(number)[:MAX_ROWS]:
        prior = int(example.columns[column])
        x, y = priors.centers[0, prior].tolist()
        values = [number_text(example.steps[name].values[number, column]) for name in names]
        owner = int(example.assigned[prior])
        location = (str(prior), f"{float(priors.strides.flatten()[prior]):g}", f"{x:.0f}", f"{y:.0f}")
        taken = "yes" if example.taken[number, column] else "no"
        rows.append((*location, *values, taken, "-" if owner < 0 else str(owner)))
    return rows


def conflicts_text(example: WorkedExample) -> str:
    """List the priors that several objects take, with their values and the winner."""
    if not example.conflicts:
        return f"no prior is taken by several objects (rule: {example.rule})"
    lines = [
        f"{plural(len(example.conflicts), 'prior')} taken by several objects; {example.rule} decides ({example.rank}):"
    ]
    column = {int(prior): i for i, prior in enumerate(example.columns)}
    values = example.steps[example.rank].values
    for one in example.conflicts[:MAX_ROWS]:
        costs = [f"{m} ({number_text(values[m, column[one.prior]])})" for m in one.objects]
        winner = "none" if one.winner < 0 else f"object {one.winner}"
        lines.append(f"  prior {one.prior}: objects {sequence(costs)}; assigned to {winner}")
    more = len(example.conflicts) - MAX_ROWS
    return "\n".join(lines + ([f"  … and {more} more"] if more > 0 else []))


def result_text(example: WorkedExample) -> str:
    """Summarize the result, and compare it with the assigner's own."""
    positives, count = example.positives(), len(example.assigned)
    without = [m for m, number in enumerate(positives) if not number]
    negatives = int(((example.assigned < 0) & ~example.ignored).sum())
    ignored = int((example.ignored & (example.assigned < 0)).sum())
    text = f"result: {plural(sum(positives), 'positive')}, {plural(negatives, 'negative')}, {ignored} ignored"
    if without:
        few = sequence(without[:MAX_ROWS]) + (" …" if len(without) > MAX_ROWS else "")
        text += f"; without a positive: object {few}" if len(without) == 1 else f"; without a positive: objects {few}"
    nonfinite = int((~example.predictions.finite()).sum())
    if nonfinite:
        text += f"\n{plural(nonfinite, 'prior')} with predictions that are not finite: never positive"
    if example.differences:
        return f"{text}\nNOT the result of the assigner: {plural(example.differences, 'prior')} of {count} differ"
    return f"{text}\nthe steps give the result of the assigner itself, at all {count} priors"


def columns_text(rows: Sequence[Sequence[str]]) -> str:
    """Align rows in columns; the last one is not padded."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def number_text(value: float | Tensor) -> str:
    """Four significant digits; ``yes`` and ``no`` of a mask."""
    if isinstance(value, Tensor):
        if value.dtype == torch.bool:
            return "yes" if bool(value) else "no"
        value = float(value)
    return f"{value + 0.0:.4g}"


def to_dict(example: WorkedExample, class_names: Sequence[str]) -> dict[str, object]:
    """Return the example as plain data; numbers that are not finite become None."""
    positives, labels = example.positives(), example.truth.labels[0].tolist()
    columns = object_columns(example)
    return {
        "assigner": str(example.assigner),
        "about": example.about,
        "sizes": {
            "M": example.num_objects,
            "N": len(example.assigned),
            "V": len(example.columns),
            "C": example.predictions.logits.shape[2],
            "levels": list(example.predictions.priors.level_sizes),
        },
        "objects": [
            {
                "class": class_names[labels[m]],
                "box": example.truth.boxes[0, m].tolist(),
                **{name: _plain(example.steps[name].values[m]) for name in columns},
                "takes": int(example.taken[m].sum()),
                "positives": positives[m],
            }
            for m in range(example.num_objects)
        ],
        "tensors": [_tensor_dict(name, step) for name, step in example.steps.items()],
        "columns": example.columns.tolist(),
        "conflicts": [{"prior": c.prior, "objects": list(c.objects), "winner": c.winner} for c in example.conflicts],
        "rule": example.rule,
        "assigned": example.assigned.tolist(),
        "ignored": example.ignored.tolist(),
        "differences_from_assigner": example.differences,
    }


def _tensor_dict(name: str, step: Step) -> dict[str, object]:
    kept = step.values.numel() <= MAX_VALUES
    return {
        "name": name,
        "title": step.title,
        "formula": step.formula,
        "axes": list(step.axes),
        "shape": list(step.values.shape),
        "type": str(step.values.dtype).removeprefix("torch."),
        "values": _plain(step.values) if kept else None,
    }


def _plain(values: Tensor) -> object:
    if not values.dtype.is_floating_point:
        return values.tolist()
    return _without_nonfinite(values.tolist())


def _without_nonfinite(values: Any) -> object:
    if isinstance(values, list):
        return [_without_nonfinite(value) for value in values]
    return values if abs(values) < float("inf") else None
