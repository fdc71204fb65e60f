"""The Triton kernels of deformable attention: equal to the PyTorch form, and used on CUDA devices only."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from support.sources import PACKAGE, ROOT, imported_modules, python_files, short, tree
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from poise.nn.kernels import deformable_sampling
from poise.nn.kernels.deformable_sampling import sample_levels

SHAPES = ((5, 7), (3, 4))
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed (it is for Linux alone)")


class Operators(TorchDispatchMode):
    """The names of the operators that were called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def operators(device: str, dtype: torch.dtype = torch.float32) -> set[str]:
    """Of sampling tensors without content."""
    with FakeTensorMode(), Operators() as called:
        value = torch.rand(2, 47, 2, 8, device=device, dtype=dtype, requires_grad=True)
        locations = torch.rand(2, 3, 2, 2, 4, 2, device=device)
        found = sample_levels(value, SHAPES, locations, torch.rand(2, 3, 2, 2, 4, device=device))
        assert found.shape == (2, 3, 16) and found.dtype == torch.float32 and found.device.type == device
        assert found.requires_grad
    return called.names


@pytest.fixture
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment variable is read again, before and after."""
    monkeypatch.delenv("POISE_TRITON", raising=False)
    deformable_sampling._load_kernel.cache_clear()
    yield
    deformable_sampling._load_kernel.cache_clear()


@needs_triton
def test_kernels_equal_the_pytorch_form() -> None:
    paths = os.pathsep.join([str(ROOT / "src"), *sys.path])
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    script = Path(__file__).with_name("interpreted_kernels.py")
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "all equal"


@needs_triton
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_kernels_compile_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile for an A100 without running: the interpreter accepts code that the compiler refuses."""
    pytest.importorskip("triton.backends.nvidia", reason="this Triton is not for NVIDIA's GPUs")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from poise.nn.kernels import deformable_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {"POINTS": 4, "BLOCK": 32, "DEPTH": 32}
    for kernel in (deformable_triton._forward, deformable_triton._backward):
        signature = dict.fromkeys(kernel.arg_names, "*fp32") | {"value": "*bf16"}
        signature |= dict.fromkeys(deformable_triton.NOT_SPECIALIZED, "i32") | dict.fromkeys(constants, "constexpr")
        made = triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 80, 32))
        assert made.asm["cubin"]


@needs_triton
@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_tensors_use_the_kernel(dtype: torch.dtype) -> None:
    called = operators("cuda", dtype)
    assert "poise::sample_levels" in called and not any("embedding_bag" in name for name in called)


@pytest.mark.usefixtures("_fresh")
def test_the_cpu_does_not_use_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deformable_sampling, "has_kernel", lambda: pytest.fail("the kernel is used on a CPU"))
    called = operators("cpu")
    assert "aten::_embedding_bag" in called and not any(name.startswith("poise::") for name in called)


@pytest.mark.usefixtures("_fresh")
def test_the_kernel_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POISE_TRITON", "0")
    assert not deformable_sampling.has_kernel()
    called = operators("cuda")
    assert "aten::_embedding_bag" in called and not any(name.startswith("poise::") for name in called)


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize("obstacle", ["not installed", "an old GPU"])
def test_where_triton_cannot_run_it_is_not_used(obstacle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if obstacle == "not installed":
        monkeypatch.setattr(deformable_sampling, "find_spec", lambda name: None)
    else:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: (8, 0) if gpu == 0 else (6, 1))
    assert not deformable_sampling.has_kernel()


@needs_triton
@pytest.mark.usefixtures("_fresh")
def test_deterministic_algorithms_use_pytorch() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        called = operators("cuda")
    finally:
        torch.use_deterministic_algorithms(False)
    assert not any(name.startswith("poise::") for name in called)


@pytest.mark.usefixtures("_fresh")
def test_the_choice_of_kernel_causes_no_graph_break() -> None:
    def choose(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if deformable_sampling.has_kernel() else x

    compiled = torch.compile(choose, backend="eager", fullgraph=True)
    assert torch.equal(compiled(torch.zeros(2)), choose(torch.zeros(2)))


def test_one_file_imports_triton_and_none_imports_that() -> None:
    """Importing poise does not import Triton; ``has_kernel`` alone loads the file."""
    importers = {short(path) for path in python_files() if "triton" in _packages(path)}
    assert importers == {short(PACKAGE / "nn" / "kernels" / "deformable_triton.py")}
    assert not [
        path for path in python_files() if "poise.nn.kernels.deformable_triton" in dict(imported_modules(path)).values()
    ]


def _packages(path: Path) -> set[str]:
    nodes = list(ast.walk(tree(path)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in plain | named}
