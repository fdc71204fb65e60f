"""The nearest places against a stable sort of all distances."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from poise.pairwise import nearest as module
from poise.pairwise.nearest import LOOK, nearest
from poise.pairwise.planes import BLOCK

HEIGHT, WIDTH = 60, 90  # places; more than 4 * LOOK * BLOCK


def scene(kind: str) -> tuple[list[Tensor], list[Tensor]]:
    """x and y of points (2,G,1) and of places (2,1,N), mostly a grid eight pixels apart."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(HEIGHT) * 8.0, torch.arange(WIDTH) * 8.0, indexing="ij")
    beyond = torch.zeros(2, 1, HEIGHT * WIDTH)
    points = torch.rand(2, 2, 40, 1, generator=generator) * torch.tensor([8.0 * WIDTH, 8.0 * HEIGHT]).view(2, 1, 1, 1)
    if kind == "ties":
        points = (points / 4).round() * 4  # on places, between two of them and between four
    if kind == "holes":
        beyond[1, 0, torch.rand(HEIGHT * WIDTH, generator=generator) > 0.3] = torch.inf
        points = points * 1.2 - 50  # some of them off the map
    if kind == "random":
        x, y = (torch.rand(HEIGHT * WIDTH, generator=generator) * 700 for _ in range(2))
    return list(points), [x.flatten() + beyond, y.flatten() + beyond]


@pytest.mark.parametrize(
    ("kind", "looks_at_all"), [("grid", False), ("ties", False), ("holes", True), ("random", True)]
)
@pytest.mark.parametrize("count", [1, 9])
def test_as_a_stable_sort(kind: str, looks_at_all: bool, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    points, centers = scene(kind)
    assert HEIGHT * WIDTH >= 4 * LOOK * BLOCK
    apart = (points[1] - centers[1]) ** 2 + (points[0] - centers[0]) ** 2
    wanted = apart.sort(dim=2, stable=True).indices[..., :count]
    if not looks_at_all:
        monkeypatch.setattr(module, "smallest", None)
    found = nearest(points, centers, count)
    torch.testing.assert_close(apart.gather(2, found), apart.gather(2, wanted))
    if kind == "ties":
        assert torch.equal(found, wanted)


def test_too_few_places_within_reach_are_found_as_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    points, (x, y) = scene("grid")
    x[0, 0, 5:], y[0, 0, 5:] = torch.inf, torch.inf
    found = nearest(points, [x, y], 9)
    monkeypatch.setattr("poise.pairwise.listing.allows_dynamic_shapes", lambda device: False)
    assert torch.equal(found, nearest(points, [x, y], 9))
    assert set(found[0].flatten().tolist()) >= set(range(5))
