"""Priors with finite predictions, and priors that are gathered."""

from __future__ import annotations

import pytest
import torch
from support.scenes import POINTS, maps_of

from poise.pairwise import only_finite
from poise.structures import Predictions

BATCH = 3


def test_only_finite_in_both_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    priors, generator = POINTS(maps_of(BATCH)), torch.Generator().manual_seed(6)
    size = priors.boxes.shape[1]
    mask = torch.rand(BATCH, size, generator=generator) > 0.5
    boxes = torch.rand(BATCH, size, 4, generator=generator)
    predictions = Predictions(priors, torch.randn(BATCH, size, 5, generator=generator), boxes)
    predictions.logits[1, mask[1].nonzero()[:2], 3] = torch.nan
    predictions.boxes[0, mask[0].nonzero()[0], 0] = torch.inf
    expected = mask & predictions.logits.isfinite().all(2) & boxes.isfinite().all(2)
    assert int((mask & ~expected).sum()) == 3
    assert torch.equal(only_finite(predictions, mask), expected)
    monkeypatch.setattr("poise.pairwise.stored_pairs.allows_dynamic_shapes", lambda device: False)
    assert torch.equal(only_finite(predictions, mask), expected)
