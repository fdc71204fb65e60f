"""Equal weights of objects: however many positives an object has, its losses count the same.

With a hard assignment an object weighs as much as it has positives, so that a large one counts several times as much as
a small one. Dual weighting normalizes the weights of each object instead (``poise.criteria.dual_weighting``). Object
balance is that normalization for the losses of any hard assignment.
"""

from __future__ import annotations

import torch
from torch import Tensor

from poise.structures import Assignment, GroundTruth


def balance_objects(weights: Tensor, assignment: Assignment, truth: GroundTruth, exponent: float) -> Tensor:
    """Divide the weights (B,N) of an object's positives by the ``exponent``-th power of their sum.

    The sum over all positives stays the same, as do the weights of other priors. With the exponent 1 all objects that
    have positives then have the same sum, with 0 nothing changes.
    """
    check_exponent(exponent)
    if not exponent:
        return weights
    own = weights * assignment.positive
    sums = own.new_zeros(truth.valid.shape).scatter_add(1, assignment.index, own)
    sums = sums.gather(1, assignment.index)
    scaled = torch.where(sums > 0, own / sums.clamp(min=torch.finfo(sums.dtype).tiny) ** exponent, 0.0)
    scaled = scaled * (own.sum() / scaled.sum().clamp(min=torch.finfo(sums.dtype).tiny))
    return torch.where(assignment.positive, scaled, weights)


def check_exponent(exponent: float) -> None:
    """Raise ``ValueError`` where the exponent is out of range."""
    if not 0 <= exponent <= 1:
        raise ValueError(f"object_balance={exponent!r}: from 0 (as published) to 1 (all objects count the same)")
