"""One label assignment of one image, step by step: every tensor with its shape, down to the result.

    example = work_out(assigner, predictions, truth)
    example.steps["cost"].values  # (M,V): the cost matrix of objects and the priors that matter

The steps are computed with the functions of the assigner itself where it has some (costs, thresholds, plans), on all
pairs instead of a list, and else with those of ``poise.pairwise``. The result of the steps is compared with that of the
assigner (``WorkedExample.differences``). Letters of shapes: **N** priors, **V** of them that matter to an object
(``columns``), **M** objects, **K** candidates of an object, **L** levels, **C** classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from poise.pairwise import Objects
from poise.structures import Assignment, GroundTruth, PairWeights, Predictions, map_tensors

MAX_PAIRS = 30_000_000  # objects times priors of an image whose matrices are computed


class TooManyPairs(ValueError):
    """The matrices of an image would not fit into memory."""


@dataclass(frozen=True)
class Step:
    """A tensor of the assignment of one image."""

    title: str  # what it is, in words
    formula: str
    axes: str  # a letter for each axis: MV, MK, M, N, ML
    values: Tensor

    @property
    def shape(self) -> str:
        """``(M, V) = (3, 120)``, and the type where it is not float32."""
        letters, sizes = ", ".join(self.axes), ", ".join(map(str, self.values.shape))
        kind = {torch.bool: " bool", torch.int64: " int64"}.get(self.values.dtype, "")
        comma = "," if len(self.axes) == 1 else ""
        return f"({letters}{comma}) = ({sizes}{comma}){kind}"


@dataclass(frozen=True)
class Conflict:
    """A prior that several objects take, and the object that it is assigned to."""

    prior: int
    objects: tuple[int, ...]
    winner: int


@dataclass(frozen=True)
class WorkedExample:
    """The steps of one assignment of one image, on the CPU."""

    assigner: object
    about: str  # the rule in a sentence
    steps: dict[str, Step]
    columns: Tensor  # (V,) int64: prior of each column of the (M,V) matrices
    candidate: Tensor  # (M,V) bool: pairs that matter
    taken: Tensor  # (M,V) bool: what objects take before conflicts are decided; of soft weights the positive ones
    conflicts: tuple[Conflict, ...]
    rule: str  # who wins a conflict
    rank: str  # name of the step by which candidates are ranked
    ascending: bool  # whether the lowest value ranks first
    assigned: Tensor  # (N,) int64: object of each prior, -1: none; of soft weights the heaviest
    ignored: Tensor  # (N,) bool
    differences: int  # priors at which the steps and the assigner disagree
    predictions: Predictions  # a batch of this image
    truth: GroundTruth  # of this image, the M objects without padding

    @property
    def num_objects(self) -> int:
        """M."""
        return int(self.truth.valid.sum())

    def positives(self) -> list[int]:
        """Number of priors that are assigned to each object."""
        return [int((self.assigned == m).sum()) for m in range(self.num_objects)]

    def candidates(self, number: int) -> list[int]:
        """Columns of the candidates of an object, ranked: those that it takes first."""
        values = self.steps[self.rank].values[number].float()
        values = values if self.ascending else -values
        order = values.nan_to_num(torch.inf, torch.inf, -torch.inf).argsort(stable=True)
        order = order[(self.candidate | self.taken)[number, order]]
        first = self.taken[number, order].int().argsort(descending=True, stable=True)
        return order[first].tolist()


@dataclass
class Notebook:
    """Collects the steps of an assignment while they are computed."""

    predictions: Predictions
    truth: GroundTruth
    steps: dict[str, Step] = field(default_factory=dict)

    @property
    def objects(self) -> Objects:
        """All objects as one chunk."""
        truth = self.truth
        return Objects(truth.boxes, truth.labels, truth.valid, slice(0, truth.labels.shape[1]))

    @property
    def points(self) -> Tensor:
        """Centers of the priors, (1,1,N,2)."""
        return self.predictions.priors.centers.float()[:, None]

    @property
    def predicted(self) -> Tensor:
        """Predicted boxes, (1,1,N,4)."""
        return self.predictions.boxes.float()[:, None]

    @property
    def boxes(self) -> Tensor:
        """Boxes of the objects, (1,M,1,4)."""
        return self.truth.boxes[:, :, None]

    def add(self, name: str, title: str, formula: str, axes: str, values: Tensor) -> Tensor:
        """Note a step and return ``values``, which have a batch axis of 1 in front."""
        self.steps[name] = Step(title, formula, axes, values[0])
        return values

    def pairs(self, name: str, title: str, formula: str, values: Tensor) -> Tensor:
        """Note values of all pairs, which broadcast to (1,M,N)."""
        shape = (1, self.truth.labels.shape[1], len(self.predictions.priors.strides.flatten()))
        return self.add(name, title, formula, "MN", values.expand(shape))


@dataclass(frozen=True)
class Outcome:
    """What the steps of a kind of assigner lead to."""

    about: str
    candidate: Tensor  # (1,M,N) bool: pairs that matter
    taken: Tensor  # (1,M,N) bool, before conflicts
    index: Tensor  # (1,N)
    positive: Tensor  # (1,N) bool
    rank: str
    ascending: bool = False
    rule: str = "the highest IoU"
    ignored: Tensor | None = None  # (1,N) bool
    weights: Tensor | None = None  # (1,N,M) of a soft assignment


def one_image(predictions: Predictions, truth: GroundTruth, image: int = 0) -> tuple[Predictions, GroundTruth]:
    """Return the predictions and the objects of one image without padding, as a batch on the CPU.

    Crowd regions come after the objects. Without both, one object that is not valid remains.
    """
    batch = len(predictions.logits)
    alone = map_tensors(predictions, lambda t: t[image : image + 1] if len(t) == batch and t.ndim > 1 else t)
    keep = torch.cat([mask[image].nonzero().flatten() for mask in (truth.valid, truth.crowd & ~truth.valid)])
    keep = keep if len(keep) else keep.new_zeros(1)
    objects = (t[image : image + 1, keep] for t in (truth.boxes, truth.labels, truth.valid, truth.crowd))
    boxes, labels, mask, crowd = objects
    alone = map_tensors(alone, Tensor.cpu)
    return alone, map_tensors(GroundTruth(boxes, labels, mask, crowd, truth.sizes[image : image + 1]), Tensor.cpu)


@torch.no_grad()
def work_out(assigner: Any, predictions: Predictions, truth: GroundTruth, image: int = 0) -> WorkedExample:
    """Work out one assignment of one image.

    Args:
        assigner: one of ``poise.assign``; of others only the result is shown.
        predictions, truth: what the assigner reads, of a batch.
        image: number of the image in the batch.

    Raises:
        TooManyPairs: objects times priors exceed ``MAX_PAIRS``.
    """
    from poise.lab.worked_assigners import steps_of

    predictions, truth = one_image(predictions, truth, image)
    count = truth.labels.shape[1] * predictions.logits.shape[1]
    if count > MAX_PAIRS:
        raise TooManyPairs(
            f"{truth.labels.shape[1]} objects and {predictions.logits.shape[1]} priors are {count:,} pairs, more than "
            f"the {MAX_PAIRS:,} that are worked out: take a model with fewer priors or a smaller image"
        )
    notebook, own = Notebook(predictions, truth), assigner(predictions, truth)
    outcome = steps_of(assigner)(assigner, notebook, own)
    rows = int(truth.valid.sum())
    columns = (outcome.candidate | outcome.taken)[0, :rows].any(0).nonzero().flatten()
    steps = {name: _to_objects_and_columns(step, rows, columns) for name, step in notebook.steps.items()}
    ignored = torch.zeros_like(outcome.positive) if outcome.ignored is None else outcome.ignored
    return WorkedExample(
        assigner=assigner,
        about=outcome.about,
        steps=steps,
        columns=columns,
        candidate=outcome.candidate[0, :rows, columns],
        taken=outcome.taken[0, :rows, columns],
        conflicts=_conflicts(outcome),
        rule=outcome.rule,
        rank=outcome.rank,
        ascending=outcome.ascending,
        assigned=torch.where(outcome.positive, outcome.index, -1)[0],
        ignored=ignored[0],
        differences=_differences(outcome, ignored, own),
        predictions=predictions,
        truth=truth,
    )


def _to_objects_and_columns(step: Step, rows: int, columns: Tensor) -> Step:
    """Remove rows of crowd regions, and reduce a matrix of all priors to those that matter."""
    values = step.values[:rows] if step.axes.startswith("M") else step.values
    return replace(step, axes="MV", values=values[:, columns]) if step.axes == "MN" else replace(step, values=values)


def _conflicts(outcome: Outcome) -> tuple[Conflict, ...]:
    taken = outcome.taken[0]
    if outcome.weights is not None:  # a prior may belong to several objects
        return ()
    several = (taken.sum(0) > 1).nonzero().flatten().tolist()
    index, positive = outcome.index[0], outcome.positive[0]
    return tuple(
        Conflict(n, tuple(taken[:, n].nonzero().flatten().tolist()), int(index[n]) if positive[n] else -1)
        for n in several
    )


def _differences(outcome: Outcome, ignored: Tensor, own: Assignment | PairWeights) -> int:
    """Number of priors at which the outcome is not that of the assigner."""
    pairs, hard = own.pairs(), own.hard()
    if pairs is not None:
        assert outcome.weights is not None
        return int((outcome.weights != pairs).any(2).sum())
    wrong = (outcome.positive != hard.positive) | (ignored != hard.ignored)
    return int((wrong | hard.positive & (outcome.index != hard.index)).sum())


def sequence(values: Sequence[object]) -> str:
    """Join numbers as in a sentence: ``1, 2 and 3``."""
    words = [str(value) for value in values]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
