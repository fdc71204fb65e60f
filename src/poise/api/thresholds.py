"""Score thresholds that the validation of a run has chosen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

METRICS = "metrics.json"


def best_thresholds(wanted: str, file: Path | None, class_names: Sequence[str]) -> Tensor:
    """The score threshold of the highest F1 of each class, (C,) float32.

    A class without a threshold of its own (no objects or no detections in the validation) has that of all classes.

    Args:
        wanted: the only word that is known is ``best``.
        file: the model file; ``metrics.json`` of its run folder has the thresholds.

    Raises:
        ValueError: another word, no run folder, no thresholds in it, or thresholds of other classes.
    """
    if wanted != "best":
        raise ValueError(f"score_threshold='{wanted}' is neither a number nor 'best'")
    source = None if file is None else file.parent / METRICS
    if source is None or not source.is_file():
        raise ValueError(
            f"score_threshold='best' needs the run folder of a model, with its {METRICS}"
            f"{'' if source is None else f' ({source} does not exist)'}; give a number instead"
        )
    numbers: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    overall, by_class = numbers.get("best_f1"), numbers.get("thresholds")
    if not overall or by_class is None:
        raise ValueError(f"{source} has no score thresholds: nothing was found in the validation; give a number")
    if missing := [name for name in class_names if name not in by_class]:
        raise ValueError(f"{source} has no threshold of the class '{missing[0]}': it is of another model")
    values = [overall["threshold"] if by_class[name] is None else by_class[name] for name in class_names]
    return torch.tensor(values, dtype=torch.float32)  # exact: scores are float32 numbers
