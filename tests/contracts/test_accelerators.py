"""What models promise on GPUs: no step waits for the host.

Where there is no GPU, its tensors are played by fake ones, which have a shape, a type and a device but no numbers: an
operation that needs a number, or a copy between host and device, shows as it would there.
"""

from __future__ import annotations

import os
import traceback
from typing import Any

import pytest
import torch
from contracts.test_models import TRACED, regions_of, scene, small
from support.slow import slow_but
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from poise.nn.kernels import deformable_sampling
from poise.structures import Batch, GroundTruth, Progress, map_tensors

BY_HOST = [name for name in TRACED if "detr" in name or "dino" in name]  # the Hungarian method is the host's
WITH_AND_WITHOUT = [(name, False) for name in TRACED] + [(name, True) for name in BY_HOST]


class Crossings(TorchDispatchMode):
    """Where operations have tensors of host and device at once, but for single numbers that the host hands over."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        copies = func.__name__.startswith(("_to_copy", "copy_"))
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and (copies or t.ndim)]
        devices = {t.device.type for t in (*given, *tree_leaves(result)) if isinstance(t, Tensor)}
        if given and len(devices) > 1:
            frames = [f for f in traceback.extract_stack() if f"{os.sep}poise{os.sep}" in f.filename]
            self.found.add(f"{func.__name__} at {frames[-1].filename}:{frames[-1].lineno}" if frames else func.__name__)
        return result


def played_by_fakes(network: nn.Module) -> None:
    """Put fake CUDA tensors in the place of all parameters and buffers; tied ones stay tied."""
    fakes: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in fakes:
            played = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
            is_parameter = isinstance(tensor, nn.Parameter)
            fakes[id(tensor)] = nn.Parameter(played, tensor.requires_grad) if is_parameter else played
        return fakes[id(tensor)]

    for module in network.modules():
        for kept in (module._parameters, module._buffers):
            for name, tensor in kept.items():
                if tensor is not None:
                    kept[name] = fake(tensor)


def batch_of(name: str, device: str) -> Batch:
    pixels, targets = scene()
    truth = GroundTruth.collate(targets, [(96, 96)] * 2)
    return Batch(pixels, truth, torch.arange(2), **regions_of(small(name))).to(torch.device(device))


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this PyTorch knows no CUDA devices")
@pytest.mark.parametrize("name, kernel", slow_but(WITH_AND_WITHOUT, [("fcos_r18_fpn", False), ("dino_r18", True)]))
def test_nothing_passes_between_host_and_device_from_pixels_to_losses(
    name: str, kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deformable attention with its Triton kernel and without."""
    if kernel and not deformable_sampling.has_kernel():
        pytest.skip("Triton is not installed")
    monkeypatch.setattr(deformable_sampling, "has_kernel", lambda: kernel)
    model, batch = small(name).train(), batch_of(name, "cpu")
    with FakeTensorMode():
        played_by_fakes(model.network)
        moved = map_tensors(batch, lambda t: torch.empty(t.shape, dtype=t.dtype, device="cuda"))
        with Crossings() as crossings:
            output = model.network(moved, Progress())
    assert output.total.device.type == "cuda"
    assert not crossings.found


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this PyTorch knows no CUDA devices")
def test_a_copy_to_the_device_and_a_number_from_it_are_noticed() -> None:
    with FakeTensorMode():
        there = torch.ones(3, device="cuda")
        with Crossings() as crossings:
            there * 2 + torch.tensor(1.0)
            assert not crossings.found
            there * torch.tensor([1.0, 2.0, 3.0], device="cuda")
        assert len(crossings.found) == 1
        with pytest.raises(DataDependentOutputException):
            there.sum().item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [name for name in TRACED if name not in BY_HOST])
def test_a_whole_step_never_waits(name: str, precision: torch.dtype) -> None:
    """Forward, losses, backward and optimizer of the second step, with PyTorch's own watch on waiting."""
    model, batch = small(name).cuda().train(), batch_of(name, "cuda")
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, 0.9, fused=True)
    for watch in ("default", "error"):
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode(watch)
        try:
            with torch.autocast("cuda", precision, enabled=precision != torch.float32):
                loss = model.network(batch, Progress()).total
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert loss.isfinite()
