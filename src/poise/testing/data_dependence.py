"""Count the operations of a step whose value or shape the host must wait for."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "unique_consecutive",
    "_unique2",
    "unique_dim",
    "equal",
    "is_nonzero",
    "nms",
    "repeat_interleave.Tensor",
}


class DataDependence(TorchDispatchMode):
    """Counts data-dependent operations: ``item``, ``nonzero``, boolean indexing, ``unique``, ``equal``, NMS.

    Operations are counted as on an accelerator: all pairs with a mask instead of the lists of a CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.undo = ExitStack()

    def __enter__(self) -> DataDependence:
        self.undo.enter_context(patch("poise.pairwise.stored_pairs.allows_dynamic_shapes", lambda device: False))
        super().__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        self.undo.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__
        if name.split(".")[0] in WAITING or name in WAITING:
            self.found[name] += 1
        if name.startswith(("index.", "index_put")) and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        ):
            self.found[f"{name} by mask"] += 1
        return func(*args, **(kwargs or {}))
