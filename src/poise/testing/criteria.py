"""The contract of criteria."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.protocols import Assigner, LossFunction
from poise.structures import GroundTruth, Predictions, map_tensors
from poise.testing.checks import run_checks
from poise.testing.data_dependence import DataDependence
from poise.testing.scenes import predictions_of, truth_of


@dataclass(frozen=True)
class Case:
    """A criterion, an assigner whose assignments it reads, and the kind of predictions that it reads."""

    criterion: LossFunction
    assigner: Assigner
    predictions: type[Predictions] | Callable[[int, int], Predictions] = Predictions

    def predict(self, images: int, seed: int) -> Predictions:
        """Return random predictions."""
        make = self.predictions
        return predictions_of(make, images, seed) if isinstance(make, type) else make(images, seed)

    def losses(self, predictions: Predictions, truth: GroundTruth) -> dict[str, Tensor]:
        """Return the losses of predictions and their assignment."""
        return self.criterion(predictions, self.assigner(predictions, truth), truth)


def check_criterion(
    criterion: Callable[..., dict[str, Tensor]],
    assigner: Assigner,
    predictions: type[Predictions] | Callable[[int, int], Predictions] = Predictions,
) -> None:
    """Check that a criterion keeps the contract of criteria.

    Args:
        criterion: a value such as ``VarifocalCriterion()``.
        assigner: makes the assignments.
        predictions: the kind of predictions that the criterion reads, or a function of the numbers of images and of the
            seed that returns them (see ``check_assigner``).

    Raises:
        BrokenContract: a promise is broken; the message says which.
    """
    run_checks(f"criterion {type(criterion).__name__}", CHECKS, Case(criterion, assigner, predictions))


def alive(predictions: Predictions) -> tuple[Predictions, list[Tensor]]:
    """Return the predictions as leaves of the graph, without the priors."""
    leaves: list[Tensor] = []

    def wake(t: Tensor) -> Tensor:
        leaves.append(t.clone().requires_grad_())
        return leaves[-1]

    priors = predictions.priors
    woken = map_tensors(predictions, wake)
    return type(woken)(**{**vars(woken), "priors": priors}), leaves


def finite_losses_with_a_gradient_for_every_output(case: Case) -> None:
    """Losses are finite scalars with finite gradients, also without any object."""
    for counts in ([5, 0], [0, 0], [30, 1]):
        predictions, leaves = alive(case.predict(2, 0))
        losses = case.losses(predictions, truth_of(counts, 1))
        assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values()), f"{losses}, {counts} objects"
        torch.stack(list(losses.values())).sum().backward()
        reached = [leaf.grad for leaf in leaves if leaf.grad is not None]
        assert reached and all(grad.isfinite().all() for grad in reached), f"{counts} objects"
        assert predictions.logits.grad is not None


def priors_that_do_not_count_have_no_gradient(case: Case) -> None:
    """Boxes of negatives and all predictions of ignored priors have no gradient."""
    predictions, _ = alive(case.predict(1, 2))
    truth = truth_of([6], 3)
    assignment = case.assigner(predictions, truth)
    torch.stack(list(case.criterion(predictions, assignment, truth).values())).sum().backward()
    assert predictions.logits.grad is not None
    hard = assignment.hard()
    assert not predictions.logits.grad[hard.ignored].any()
    if predictions.boxes.grad is not None:
        assert not predictions.boxes.grad[~hard.positive].any()


def no_operation_depends_on_the_data(case: Case) -> None:
    """No operation waits for values: no item(), nonzero() or boolean indexing."""
    predictions, truth = case.predict(2, 6), truth_of([5, 0], 7)
    with DataDependence() as counted:
        case.losses(predictions, truth)
    assert not counted.found, dict(counted.found)


def one_graph(case: Case) -> None:
    """torch.compile traces assigner and criterion as one graph, with the same losses."""
    predictions, truth = case.predict(2, 8), truth_of([5, 2], 9)
    torch._dynamo.reset()
    compiled = torch.compile(lambda p, t: case.losses(p, t), backend="eager", fullgraph=True)
    for key, value in case.losses(predictions, truth).items():
        torch.testing.assert_close(compiled(predictions, truth)[key], value)


def gradient_equals_finite_differences(case: Case) -> None:
    """The gradient of a class logit of a negative equals finite differences in float64."""
    predictions, truth = case.predict(1, 10), truth_of([4], 11)
    assignment = case.assigner(predictions, truth)
    hard = assignment.hard()
    prior = int(hard.negative[0].int().argmax())
    double = map_tensors(predictions, lambda t: t.double())
    wide = map_tensors(truth, lambda t: t.double() if t.is_floating_point() else t)

    def total(p: Predictions) -> Tensor:
        return torch.stack(list(case.criterion(p, assignment, wide).values())).sum()

    woken, _ = alive(double)
    total(woken).backward()
    assert woken.logits.grad is not None
    step = torch.zeros_like(double.logits)
    step[0, prior, 1] = 1e-2
    above, below = (total(type(double)(**{**vars(double), "logits": double.logits + s * step})) for s in (1, -1))
    difference, gradient = float(above - below) / 2e-2, float(woken.logits.grad[0, prior, 1])
    assert math.isclose(difference, gradient, rel_tol=1e-3, abs_tol=1e-9), f"{difference} and {gradient}"


CHECKS = (
    finite_losses_with_a_gradient_for_every_output,
    priors_that_do_not_count_have_no_gradient,
    no_operation_depends_on_the_data,
    gradient_equals_finite_differences,
    one_graph,  # last: it takes longest
)
