"""Generate src/poise/models/table.json: family, backbone, parameters and multiply-adds of every built-in model.

python benchmarks/model_table.py            # compare the file with the models
python benchmarks/model_table.py --write    # write it; some minutes
python benchmarks/model_table.py --write --add    # the same, keeping the counts of models that are in the file
"""

from __future__ import annotations

import contextlib
import inspect
import json
import sys
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin, get_type_hints
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import poise
from poise.models.assigners import builders
from poise.models.catalog import NAMES, Entry
from poise.models.class_balance import CLASS_BALANCE
from poise.models.criteria import CRITERIA
from poise.models.necks import NECKS
from poise.models.one_to_one import ONE_TO_ONE
from poise.models.roles import without_training_parts
from poise.models.samplers import SAMPLERS
from poise.models.table import FILE, KINDS, OF_EVERY_MODEL
from poise.storage import write_text_atomically
from poise.structures import Detections

OWN = ("return", "num_classes", "backbone_weights", *OF_EVERY_MODEL)


def kinds_of(hint: Any) -> list[str]:
    """Names of ``KINDS`` that a type hint allows; an empty list where it allows others."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    names = ["None" if one in (None, types.NoneType) else getattr(one, "__name__", "") for one in members]
    return names if set(names) <= set(KINDS) else []


def options_of(entry: Entry) -> dict[str, list[str]]:
    """Options of a model's builder, and the kinds of their values."""
    hints = get_type_hints(entry.builder)
    return {name: kinds_of(hint) for name, hint in hints.items() if name not in OWN}


def backbone_of(entry: Entry) -> str:
    """timm's name of the backbone: of the entry, else the builder's default."""
    return str(entry.fixed.get("backbone", inspect.signature(entry.builder).parameters["backbone"].default))


def parameters_of(name: str) -> float:
    """Millions of parameters of the inference, without parts that only training needs; of a model without storage."""
    with torch.device("meta"):
        model = without_training_parts(poise.create_model(name))
    guide = "network.guide."  # NanoDet-Plus's assign guidance module
    counts = [one.numel() for part, one in model.named_parameters() if not part.startswith(guide)]
    return round(sum(counts) / 1e6, 2)


def gflops_of(name: str) -> float:
    """Multiply-adds of the inference of one image in 10^9, counted by PyTorch on tensors without storage.

    Samples, NMS and top-k do not count. A second stage classifies 1,000 proposals. Deformable convolutions count as
    the plain ones of their shape.
    """
    with torch.device("meta"), without_storage():
        model = poise.create_model(name).eval().requires_grad_(False)
        height, width = model.preprocess.padded_size(model.preprocess.short, model.preprocess.long)
        pixels = torch.zeros(1, 3, height, width)
        index = torch.zeros(1, 1000, dtype=torch.long)
        proposals = Detections(torch.zeros(1, 1000, 4), index.float(), index, index == 0)
        if hasattr(model.network, "branch") and hasattr(model.network.branch, "proposal"):
            model.network.branch.proposal.inference_postprocess = lambda *_: proposals
        counter = FlopCounterMode(display=False)
        with contextlib.suppress(NotImplementedError, RuntimeError), counter:  # in NMS, whose shapes depend on values
            if model.needs_proposals:
                model.network.predict(pixels, pixels.new_tensor([[height, width]]), proposals)
            else:
                model.predict(pixels)
    return round(counter.get_total_flops() / 2e9, 1)


@contextlib.contextmanager
def without_storage() -> Iterator[None]:
    """Replace what tensors without storage cannot do by operations of the same multiply-adds."""

    def sampled(value: Tensor, shapes: Any, locations: Tensor, weights: Tensor) -> Tensor:
        return value.new_empty(*locations.shape[:2], value.shape[2] * value.shape[3])

    def plain(x: Tensor, offset: Tensor, weight: Tensor, bias: Any, *rest: Any) -> Tensor:
        return functional.conv2d(x, weight, bias, *rest[:3], groups=x.shape[1] // weight.shape[1])

    with (
        mock.patch("poise.nn.transformer.layers.sample_levels", sampled),
        mock.patch("poise.nn.kernels.deformable_sampling.deform_conv2d", plain),
        mock.patch("torch.autocast", return_value=contextlib.nullcontext()),
    ):
        yield


def table(known: dict[str, Any]) -> dict[str, Any]:
    """The content of the file; counts of models in ``known`` are taken from there."""
    models, options = {}, {}
    for name, entry in NAMES.items():
        family = entry.builder.__name__
        options[family] = options_of(entry)
        size = [entry.preprocess.short, entry.preprocess.long]
        counts = known[name][2:4] if name in known else [parameters_of(name), gflops_of(name)]
        models[name] = [family, backbone_of(entry), *counts, size]
        print(name, *models[name], flush=True)
    parts = {"assigner": list(builders()), "sampler": list(SAMPLERS), "criterion": list(CRITERIA), "neck": list(NECKS)}
    parts |= {"class_balance": list(CLASS_BALANCE), "one_to_one": list(ONE_TO_ONE)}
    return {"parts": parts, "options": options, "models": dict(sorted(models.items()))}


def as_text(content: dict[str, Any]) -> str:
    """JSON with one line for each model and each family."""
    blocks = []
    for key, rows in content.items():
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
        blocks.append(f' "{key}": {{\n{lines}\n }}')
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def main(words: list[str]) -> int:
    """Write or compare the table."""
    old = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {"models": {}}
    new = table(old["models"] if "--add" in words else {})
    if "--write" in words:
        write_text_atomically(FILE, as_text(new))
        return 0
    print("equal" if new == old else "differs: run with --write")
    return int(new != old)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
