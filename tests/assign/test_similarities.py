"""Similarities in place of the IoU, against their formulas."""

from __future__ import annotations

import pytest
import torch
from support.scenes import random_boxes
from support.similarities import literal

from poise.boxes import iou, with_least_sides
from poise.similarities import GCD, NWD, SimD, similarity_of

SIMILARITIES = (NWD(), NWD(30.0), SimD(), SimD(2.0, 3.0), GCD())


@pytest.mark.parametrize("similarity", SIMILARITIES, ids=str)
def test_values(similarity: NWD | SimD | GCD) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = random_boxes(9, generator), random_boxes(7, generator)
    found, wanted = similarity(a[:, None], b), literal(similarity)
    for i, one in enumerate(a.tolist()):
        for j, other in enumerate(b.tolist()):
            assert float(found[i, j]) == pytest.approx(wanted(one, other), rel=1e-4, abs=1e-7)
    assert (similarity(b, b) == 1).all()
    torch.testing.assert_close(similarity(b, a[:, None]), found)


def test_only_the_wasserstein_distance_depends_on_the_scale() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = random_boxes(20, generator), random_boxes(20, generator)
    for similarity in (SimD(), GCD()):
        torch.testing.assert_close(similarity(a, b), similarity(a * 3, b * 3), rtol=1e-4, atol=1e-6)
    assert (NWD()(a, b) > NWD()(a * 3, b * 3)).all()
    torch.testing.assert_close(NWD(12.0)(a, b), NWD(36.0)(a * 3, b * 3), rtol=1e-4, atol=1e-6)


def test_boxes_without_a_common_area_and_without_a_number() -> None:
    a, b = torch.tensor([0.0, 0, 6, 6]), torch.tensor([[8.0, 0, 14, 6], [torch.nan, 0, 1, 1], [0, 0, torch.inf, 1]])
    for similarity in SIMILARITIES:
        found = similarity_of(similarity, a, b)
        assert found[0] > 0 and (found[1:] == 0).all()
    assert torch.equal(similarity_of(None, a, b[:1]), iou(a, b[:1]))


def test_only_sides_below_the_floor_grow() -> None:
    boxes = torch.tensor([[10.0, 20, 14, 50], [3, 3, 40, 40], [7, 8, 7, 8]])
    assert with_least_sides(boxes, 16.0).tolist() == [[4, 20, 20, 50], [3, 3, 40, 40], [-1, 0, 15, 16]]
    assert with_least_sides(boxes, 0.0) is boxes


@pytest.mark.parametrize("wrong", [lambda: NWD(0.0), lambda: SimD(m=-1.0)])
def test_wrong_options_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        wrong()
