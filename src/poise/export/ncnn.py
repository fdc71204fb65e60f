"""ncnn files: ``*.param``, the weights in ``*.bin`` and the metadata in ``*.json``."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from poise.export.formats import companion
from poise.export.metadata import ExportMetadata

if TYPE_CHECKING:
    from poise.export.plan import Plan

CONVERTED = "converted"  # stem of the converter's files
ATTEMPTS = 3  # pnnx crashes in about one of eighty runs and succeeds on the same file the next time


def write(plan: Plan, path: Path) -> None:
    """Convert a plan with pnnx and write its files.

    Raises:
        ValueError: the converter fails, or the result has operators that ncnn does not support.
    """
    import pnnx

    examples, folder = [*plan.examples().values()], path.parent
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit warns that it is deprecated
        traced = torch.jit.trace(_with_known_operators(plan.program()), tuple(examples), check_trace=False)
    traced.save(str(folder / f"{CONVERTED}.pt"))
    shapes = ",".join(f"[{','.join(map(str, value.shape))}]f32" for value in examples)
    command = [pnnx.EXEC_PATH, f"{CONVERTED}.pt", f"inputshape={shapes}"]
    command.append(f"fp16={int(plan.metadata.precision == 'fp16')}")
    done = _run(command, folder)
    param, weights = (folder / f"{CONVERTED}.ncnn.{kind}" for kind in ("param", "bin"))
    if done.returncode or not param.is_file():
        end = " ".join(done.stderr.split()[-20:])
        raise ValueError(f"pnnx cannot convert '{plan.model.name}' (exit code {done.returncode}): … {end}")
    _refuse_unsupported(param, plan.model.name)
    param.rename(path)
    weights.rename(companion(path, ".bin"))
    for left in folder.glob(f"{CONVERTED}*"):
        left.unlink()
    companion(path, ".json").write_text(plan.metadata.to_text(), encoding="utf-8")


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the converter, again if it crashes."""
    for _ in range(ATTEMPTS):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if 0 <= done.returncode < 128:  # a crash gives a negative code, on Windows a large one
            break
    return done


def _with_known_operators(program: torch.export.ExportedProgram) -> Any:
    """Return the program as a module with operators that the converter supports."""
    module: Any = program.module()
    for node in module.graph.nodes:
        if node.target is torch.ops.aten._unsafe_view.default:
            node.target = torch.ops.aten.reshape.default
    module.recompile()
    return module


def _refuse_unsupported(param: Path, name: str) -> None:
    """Raise ``ValueError`` for operators on which ncnn would crash."""
    kinds = {line.split()[0] for line in param.read_text(encoding="utf-8").splitlines()[2:] if line.strip()}
    unsupported = sorted(kind for kind in kinds if "." in kind or kind.startswith("aten::"))
    if unsupported:
        raise ValueError(
            f"'{name}' has operators that ncnn does not support: {', '.join(unsupported)}; use another format"
        )


def open_file(path: Path, threads: int) -> tuple[ExportMetadata, Any]:
    """Return the metadata of the file and a function that runs it."""
    import ncnn

    metadata = ExportMetadata.from_text(companion(path, ".json").read_text(encoding="utf-8"))
    net = ncnn.Net()
    half = metadata.precision == "fp16"
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = half
    if threads:
        net.opt.num_threads = threads
    if net.load_param(str(path)) or net.load_model(str(companion(path, ".bin"))):
        raise ValueError(f"{path} is not a usable ncnn file (its layers are listed above, where ncnn lacks some)")

    def run(inputs: Mapping[str, Tensor]) -> list[Tensor]:
        extractor = net.create_extractor()
        for number, value in enumerate(inputs.values()):
            extractor.input(f"in{number}", ncnn.Mat(value[0].numpy()).clone())
        found = []
        for number in range(len(metadata.names)):
            code, value = extractor.extract(f"out{number}")
            if code:
                raise ValueError(f"{path}: ncnn stopped with code {code} at output {metadata.names[number]}")
            found.append(torch.from_numpy(np.array(value))[None])
        return found

    return metadata, run
