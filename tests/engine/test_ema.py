"""Averages against literal formulas."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from torch import nn

from poise.engine.ema import ExponentialMovingAverage, decay_at


def test_nanodet_ramp() -> None:
    """m_t = 0.9998 exp(-(1+t)/2000) + 0.0002, ema <- ema (1 - m_t) + theta m_t."""
    for t in (0, 1, 100, 2000, 100_000):
        m = 0.9998 * math.exp(-(1 + t) / 2000) + 0.0002
        assert decay_at(t, 0.9998) == pytest.approx(1 - m, abs=1e-12)
    assert decay_at(5, 0.9, "ratio") == pytest.approx(6 / 15)
    assert decay_at(10_000, 0.9, "ratio") == 0.9
    assert decay_at(0, 0.9, "none") == 0.9


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_parameters_and_buffers_follow_the_formula() -> None:
    net = network()
    average = ExponentialMovingAverage(net, 0.9, "exponential", 10.0)
    expected = {name: value.clone().double() for name, value in net.state_dict().items()}
    for step in range(1, 20):
        net(torch.randn(4, 3))
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update(step)
        decay = 0.9 * (1 - math.exp(-(1 + step) / 10))
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value.double()
    for name, value in average.values.items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert int(average.values["1.num_batches_tracked"]) == 19


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_never_enter(bad: float) -> None:
    net = network()
    average = ExponentialMovingAverage(net, 0.5, "none")
    before = average.values["0.weight"].clone()
    with torch.no_grad():
        net[0].weight.add_(1)
        net[0].weight[0, 0] = bad
    average.update(1)
    after = average.values["0.weight"]
    assert after.isfinite().all() and after[0, 0] == before[0, 0]
    torch.testing.assert_close(after[1], before[1] + 0.5)
    average.update(2, healthy=torch.tensor(False))
    assert torch.equal(after, average.values["0.weight"])


def test_applied_gives_the_network_back_to_the_bit() -> None:
    net = network()
    average = ExponentialMovingAverage(net, 0.5, "none")
    with torch.no_grad():
        net[0].weight.mul_(3)
    average.update(1)
    own = {name: value.clone() for name, value in net.state_dict().items()}
    with contextlib.suppress(KeyError), average.applied():
        assert all(torch.equal(value, average.values[name]) for name, value in net.state_dict().items())
        raise KeyError("an evaluation that fails")
    assert all(torch.equal(value, own[name]) for name, value in net.state_dict().items())


def test_the_fast_path_has_the_bits_of_the_formula_of_single_values() -> None:
    """All tensors at once, where every value is finite, and tensor by tensor otherwise."""
    net = network()
    fast, single = (ExponentialMovingAverage(net, 0.9, "none") for _ in range(2))
    with torch.no_grad():
        net[0].weight.add_(torch.randn_like(net[0].weight))
        expected = single.values["0.weight"].lerp(net[0].weight, 1 - 0.9)
        fast.update(1)
        net[0].bias[0] = float("nan")
        single.update(1)
    assert torch.equal(fast.values["0.weight"], expected)
    assert torch.equal(single.values["0.weight"], expected)
