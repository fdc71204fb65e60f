"""The supervision of many images in numbers: who gets how much of it, on which places, and how methods agree.

Images are taken one at a time, each with its own normalizers. Sizes are square roots of areas in pixels of the images
as they were annotated; the bins of size are COCO's.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poise.lab.explain import Stage

SIZES = {"small": (0.0, 32.0), "medium": (32.0, 96.0), "large": (96.0, float("inf"))}
DECADES = np.arange(-9.0, 1.01, 0.25)  # bins of the logarithm of a weight
TENTHS = np.linspace(0, 1, 11)
KINDS = ("positive", "negative", "regression")
COLUMNS = ("image", "object", "label", "size", "positives", "effective", "weight", "best_iou", "best_score")


@dataclass
class Supervision:
    """What one stage of one method told the places of the images that were added."""

    images: int = 0
    rows: list[tuple[float, ...]] = field(default_factory=list)  # COLUMNS of every object
    levels: dict[float, int] = field(default_factory=dict)  # positives by stride; of regions all under 1
    positives: int = 0
    ambiguous: int = 0  # positives whose center lies in several objects
    contested: int = 0  # positives of several objects at once, which only soft assignments have
    histograms: dict[str, np.ndarray] = field(
        default_factory=lambda: {kind: np.zeros(len(DECADES) - 1) for kind in KINDS}
    )
    zero: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    negatives: np.ndarray = field(
        default_factory=lambda: np.zeros((2, 10))
    )  # by IoU (of regions the prior's): places, their weight
    pairs: list[np.ndarray] = field(default_factory=list)  # scores and IoUs of positives, (2,n)

    def add(self, stage: Stage, factor: np.ndarray, labels: np.ndarray) -> None:
        """Count one image.

        Args:
            stage: it holds this image alone, on the CPU.
            factor: (4,) what its boxes are multiplied by to be in pixels of the image.
            labels: (n,) the data's class of each object.
        """
        view, image = stage.of_image(0), self.images
        scale = torch.as_tensor(factor, dtype=view.objects.dtype)
        sides = (view.objects[:, 2:] - view.objects[:, :2]) * scale[:2]
        claims = torch.zeros_like(view.index)
        for number in view.numbers:
            seen = view.of_object(number)
            claims += seen.chosen
            weight = seen.positive.sum()
            effective = weight.square() / seen.positive.square().sum() if weight > 0 else weight
            size = sides[number].prod().clamp(min=0).sqrt()
            numbers = (size, seen.chosen.sum(), effective, weight, seen.iou.max(), seen.score.max())
            self.rows.append((image, number, int(labels[number]), *(float(value) for value in numbers)))
            self.pairs.append(torch.stack((seen.score, seen.iou))[:, seen.chosen].numpy())
            self._count_levels(stage, seen.chosen)
        claimed = claims > 0
        self.images += 1
        self.positives += int(claimed.sum())
        self.ambiguous += int((claimed & (view.within > 1)).sum())
        self.contested += int((claims > 1).sum())
        self._count_weights(stage, claimed)

    def _count_levels(self, stage: Stage, chosen: Tensor) -> None:
        strides, counts = stage.priors.strides[chosen].unique(return_counts=True)
        for stride, count in zip(strides.tolist(), counts.tolist(), strict=True):
            self.levels[stride] = self.levels.get(stride, 0) + count

    def _count_weights(self, stage: Stage, claimed: Tensor) -> None:
        for kind in KINDS:
            values = getattr(stage, kind)[0].double().numpy()
            known = values > 0
            logs = np.log10(values[known]).clip(DECADES[0], DECADES[-1])
            self.histograms[kind] += np.histogram(logs, DECADES)[0]
            self.zero[kind] += int((~known).sum())
        others = stage.weighed[0] & ~claimed
        view = stage.of_image(0)
        overlap = (view.nearest_of_priors if stage.free else view.nearest)[1][others].numpy()
        self.negatives[0] += np.histogram(overlap, TENTHS)[0]
        self.negatives[1] += np.histogram(overlap, TENTHS, weights=stage.negative[0][others].numpy())[0]

    @property
    def objects(self) -> dict[str, np.ndarray]:
        """A column for each of ``COLUMNS``, a row for each object."""
        table = np.array(self.rows, dtype=np.float64).reshape(-1, len(COLUMNS))
        return dict(zip(COLUMNS, table.T, strict=True))

    def correlation(self) -> float | None:
        """Pearson's, of score and IoU over positives; ``None`` where there are too few."""
        both = np.concatenate([np.zeros((2, 0)), *self.pairs], 1)
        if both.shape[1] < 3 or min(both.std(1)) == 0:
            return None
        return float(np.corrcoef(both)[0, 1])

    def to_dict(self, names: Sequence[str] = ()) -> dict[str, Any]:
        """All of it in numbers that JSON holds; ``names`` of the classes."""
        objects = self.objects
        total = max(float(objects["weight"].sum()), 1e-30)
        sizes = {}
        for name, (low, high) in SIZES.items():
            held = (objects["size"] >= low) & (objects["size"] < high)
            sizes[name] = _group(objects, held, total)
        labels = objects["label"].astype(int)
        classes = {_name(label, names): _group(objects, labels == label, total) for label in np.unique(labels).tolist()}
        return {
            "images": self.images,
            "objects": len(labels),
            "without_positive": int((objects["positives"] == 0).sum()),
            "positives": self.positives,
            "ambiguous": self.ambiguous,
            "contested": self.contested,
            "positives_per_object": _mean(objects["positives"]),
            "effective_positives_per_object": _mean(objects["effective"]),
            "score_iou_correlation": self.correlation(),
            "positives_by_stride": {f"{stride:g}": count for stride, count in sorted(self.levels.items())},
            "by_size": sizes,
            "by_class": classes,
            "log10_weight_edges": DECADES.tolist(),
            "weights": {kind: self.histograms[kind].astype(int).tolist() for kind in KINDS},
            "weights_of_zero": self.zero,
            "negatives_by_iou": {
                "places": self.negatives[0].astype(int).tolist(),
                "weight": self.negatives[1].tolist(),
            },
        }

    def to_csv(self, method: str, stage: str, names: Sequence[str] = ()) -> list[list[Any]]:
        """A row for each object, without the heading of ``CSV_COLUMNS``."""
        return [
            [method, stage, int(row[0]), int(row[1]), _name(int(row[2]), names), *(f"{value:.6g}" for value in row[3:])]
            for row in self.rows
        ]


def flat_rows(stages: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """The numbers of ``to_dict`` as a table: method, stage, number (``by_size.small.objects``), value."""
    rows = []
    for stage in stages:
        rest = {name: value for name, value in stage.items() if name not in ("method", "stage")}
        rows += [[stage["method"], stage["stage"], name, value] for name, value in _leaves("", rest)]
    return rows


def _leaves(place: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list):
        parts = dict(enumerate(value)).items()
    else:
        return [(place, "" if value is None else value)]
    return [leaf for name, part in parts for leaf in _leaves(f"{place}.{name}" if place else str(name), part)]


CSV_COLUMNS = ("method", "stage", "image", "object", "class", *COLUMNS[3:])


def csv_text(rows: Sequence[Sequence[Any]], columns: Sequence[str] = CSV_COLUMNS) -> str:
    """A table; by default that of the objects of all methods."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


@dataclass
class Agreement:
    """How far methods choose the same places for the same objects, over all images that were added."""

    shared: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, stages: Mapping[str, Stage]) -> None:
        """One image as several methods see it (each stage holds it alone). Methods with other places are left out."""
        names = list(stages)
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                if same_places(stages[first], stages[second]):
                    counts = self.shared.setdefault((first, second), [0.0, 0.0, 0.0, 0.0])
                    for k, value in enumerate(_overlap(stages[first], stages[second])):
                        counts[k] += value

    def to_list(self) -> list[dict[str, Any]]:
        """For each pair of methods: positives shared over positives of either, and the same of their weights."""
        return [
            {
                "methods": list(pair),
                "shared_positives": both / either if either else None,
                "shared_weight": least / most if most else None,
            }
            for pair, (both, either, least, most) in self.shared.items()
        ]


def same_places(first: Stage, second: Stage) -> bool:
    """Whether two stages predict at the same places of the same input (their anchors may differ)."""
    a, b = first.priors, second.priors
    if a.level_sizes != b.level_sizes or a.boxes.shape[1] != b.boxes.shape[1]:
        return False
    return bool(torch.allclose(a.centers, b.centers, atol=0.5)) and bool(torch.equal(a.strides, b.strides))


def _overlap(first: Stage, second: Stage) -> tuple[float, float, float, float]:
    """Places chosen by both and by either; sums of the lesser and of the greater share of each object's weight."""
    a, b = first.of_image(0), second.of_image(0)
    total = torch.zeros(4, dtype=torch.float64)
    for number in a.numbers:
        one, two = a.of_object(number), b.of_object(number)
        share, other = (view.positive / view.positive.sum().clamp(min=1e-30) for view in (one, two))
        sums = ((one.chosen & two.chosen).sum(), (one.chosen | two.chosen).sum())
        total += torch.stack([*sums, torch.minimum(share, other).sum(), torch.maximum(share, other).sum()]).double()
    both, either, least, most = total.tolist()
    return both, either, least, most


def _group(objects: Mapping[str, np.ndarray], held: np.ndarray, total: float) -> dict[str, Any]:
    return {
        "objects": int(held.sum()),
        "share_of_supervision": float(objects["weight"][held].sum()) / total,
        "positives_per_object": _mean(objects["positives"][held]),
        "without_positive": int((objects["positives"][held] == 0).sum()),
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def _name(label: int, names: Sequence[str]) -> str:
    return names[label] if 0 <= label < len(names) and names[label] else str(label)
