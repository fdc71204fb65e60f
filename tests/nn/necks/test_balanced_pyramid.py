"""The balanced pyramid against the original's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.parity import GOLDEN, golden, values

from poise.nn.necks.feature_pyramids import BalancedPyramid

NAMES = {
    "conv": "conv",
    "g.conv": "value",
    "theta.conv": "query",
    "phi.conv": "key",
    "conv_out.conv": "output",
}


def published(refine: str) -> dict[str, torch.Tensor]:
    """The original's weights under our names."""
    with np.load(GOLDEN / "bfp.npz", allow_pickle=False) as archive:
        entries = [str(entry).split() for entry in archive[f"{refine}_keys"]] if refine != "None" else []
    state = {}
    for key, shape in entries:
        part, kind = key.removeprefix("refine.").rsplit(".", 1)
        value = values.value(f"bfp.{key}", map(int, shape.split("x")))
        state[f"refine.{NAMES[part]}.{kind}"] = torch.from_numpy(value)
    return state


@pytest.mark.parametrize(("original", "refine"), [("None", "none"), ("conv", "conv"), ("non_local", "non_local")])
def test_equals_the_original(original: str, refine: str) -> None:
    numbers = golden("bfp")
    pyramid = BalancedPyramid(64, 2, refine)
    pyramid.load_state_dict(published(original))
    maps = [
        torch.from_numpy(np.random.default_rng(i).standard_normal((2, 64, 80 // 2**i, 96 // 2**i))).float()
        for i in range(5)
    ]
    for i, level in enumerate(pyramid(maps)):
        torch.testing.assert_close(level[:, ::8, ::2, ::2], numbers[f"{original}_out{i}"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_any_number_of_levels_and_odd_sizes(levels: int) -> None:
    maps = [torch.randn(1, 8, 37 // 2**i + 1, 23 // 2**i + 1, requires_grad=True) for i in range(levels)]
    out = BalancedPyramid(8, levels // 2, "non_local")(maps)
    assert [level.shape for level in out] == [level.shape for level in maps]
    sum(level.sum() for level in out).backward()  # type: ignore[union-attr]
    assert all(level.grad is not None for level in maps)


def test_a_missing_level_is_refused() -> None:
    with pytest.raises(ValueError, match="gathers at level 3, there are 2"):
        BalancedPyramid(8, 3)([torch.zeros(1, 8, 4, 4), torch.zeros(1, 8, 2, 2)])
    with pytest.raises(ValueError, match="refine='wavelet'"):
        BalancedPyramid(8, 1, "wavelet")
