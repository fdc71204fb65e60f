"""Equal weights of objects in a dense detector: ``create_model("fcos_r50_fpn", object_balance=1.0)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import nn

from poise.criteria.object_balance import check_exponent
from poise.detectors.parts import dense_branch
from poise.protocols import Criterion
from poise.structures import map_value


def set_object_balance(network: nn.Module, exponent: float, model: str) -> None:
    """Set ``object_balance`` of the criterion of a dense detector (``poise.criteria.object_balance``).

    Raises:
        ValueError: the exponent is out of range, or the criterion has no such weights.
    """
    check_exponent(exponent)
    branch = dense_branch(network)
    if branch is None:
        raise ValueError(f"object_balance={exponent!r} is an option of one-stage detectors; '{model}' is none")

    def balanced(criterion: Criterion) -> Criterion:
        values = vars(criterion)
        if "object_balance" not in values:
            raise ValueError(
                f"object_balance={exponent!r}: the criterion of '{model}', {type(criterion).__name__}, has no such "
                "option; those of DW, AutoAssign and FreeAnchor normalize the weights of each object themselves"
            )
        return cast(Callable[..., Criterion], type(criterion))(**{**values, "object_balance": float(exponent)})

    own = branch.criterion
    branch.criterion = map_value(own, balanced)
    if branch.hard_criterion is own:
        branch.hard_criterion = branch.criterion
