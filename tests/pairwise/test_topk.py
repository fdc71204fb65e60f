"""The smallest values and the nearest priors against a stable sort."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from poise.pairwise import nearest_per_level, smallest, sort_keys
from poise.pairwise.stored_pairs import values_of_keys
from poise.structures import Priors

LEVELS = ((40, 60, 8.0), (20, 30, 16.0))  # rows, columns, stride


@pytest.mark.parametrize("priors", [3, 40, 2000])
def test_the_smallest_are_those_of_a_stable_sort(priors: int) -> None:
    values = torch.randint(-4, 5, (2, 4, priors), generator=torch.Generator().manual_seed(5)).float()  # many ties
    values[0, 0, :2] = torch.tensor([-torch.inf, torch.inf])
    value, index = values.sort(dim=2, stable=True)
    found = smallest(values, 3)
    assert torch.equal(found[0], value[..., :3]) and torch.equal(found[1], index[..., :3])


def test_keys_are_ordered_as_the_values_and_lead_back_to_them() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 1e20
    values[:4] = torch.tensor([torch.inf, -torch.inf, 0.0, -0.0])
    keys = sort_keys(values)
    assert torch.equal(keys.argsort(stable=True), values.argsort(stable=True))
    assert torch.equal(values_of_keys(keys), values)


def scene(kind: str) -> tuple[Priors, Tensor, Tensor | None]:
    """Priors of two levels, objects (2,40,4) and the usable priors."""
    generator = torch.Generator().manual_seed(0)
    boxes, strides = [], []
    for rows, columns, stride in LEVELS:
        y, x = torch.meshgrid(torch.arange(rows) * stride, torch.arange(columns) * stride, indexing="ij")
        centers = torch.stack((x, y), 2).flatten(0, 1)
        boxes.append(torch.cat((centers - stride, centers + stride), 1))
        strides.append(torch.full((rows * columns,), stride))
    sizes = tuple(rows * columns for rows, columns, _ in LEVELS)
    center = torch.rand(2, 40, 2, generator=generator) * torch.tensor([480.0, 320.0]) * 1.2 - 40
    usable = None
    if kind == "ties":
        center = (center / 4).round() * 4  # on priors, between two of them and between four
    if kind == "holes":
        usable = torch.rand(2, sum(sizes), generator=generator) > 0.7
    return Priors(torch.cat(boxes)[None], torch.cat(strides), sizes), torch.cat((center - 3, center + 3), 2), usable


@pytest.mark.parametrize("kind", ["grid", "ties", "holes"])
@pytest.mark.parametrize("topk", [1, 9])
def test_nearest_per_level_as_a_stable_sort(kind: str, topk: int) -> None:
    priors, objects, usable = scene(kind)
    index, valid = nearest_per_level(priors, objects, topk, usable)
    assert index.shape == (2, 40, 2 * topk) and bool(valid.all())
    center = (objects[..., :2] + objects[..., 2:]) / 2
    distance = (center[:, :, None] - priors.centers[:, None]).square().sum(3)
    if usable is not None:
        distance = torch.where(usable[:, None], distance, torch.inf)
    for level, start in ((0, 0), (1, priors.level_sizes[0])):
        part = distance[..., start : start + priors.level_sizes[level]]
        expected = part.sort(dim=2, stable=True).indices[..., :topk] + start
        found = index[..., level * topk : (level + 1) * topk]
        torch.testing.assert_close(distance.gather(2, found), distance.gather(2, expected))
        if kind == "ties":
            assert torch.equal(found, expected)


def test_too_few_usable_priors_are_reported() -> None:
    priors, objects, _ = scene("grid")
    usable = torch.zeros(2, sum(priors.level_sizes), dtype=torch.bool)
    usable[:, :5] = True
    index, valid = nearest_per_level(priors, objects, 9, usable)
    assert (valid.sum(2) == 5).all() and set(index[valid].tolist()) == set(range(5))
