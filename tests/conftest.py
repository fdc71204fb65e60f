"""Fixtures for every test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny tensors run fastest on one thread, and every order of summation stays the same."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_threads_of_autograd() -> None:
    """Tests fork processes that train, which they cannot where autograd has threads for devices.

    PyTorch starts them at the first backward pass if it believes in a device, as it does once fake tensors or a
    compiled graph were made; so the first backward pass is here, whichever test a worker begins with.
    """
    torch.ones(1, requires_grad=True).sum().backward()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The sibling folder with real pictures and golden numbers, where a checkout has one."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder 'shared' next to the repository (real data, golden numbers)")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Numbers computed by the original implementations."""
    return ROOT / "tests" / "golden"
