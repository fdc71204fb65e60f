"""Statistics of the supervision of many images: positives and weights by object, size, class and level; agreement.

Images are processed one at a time, each with its own normalizers. The size of an object is the square root of its area
in pixels of the image as annotated; the size ranges are those of COCO.
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
LOG_WEIGHT_EDGES = np.arange(-9.0, 1.01, 0.25)  # bins of log10 of a weight
IOU_EDGES = np.linspace(0, 1, 11)
KINDS = ("positive", "negative", "regression")
COLUMNS = (
    *("image", "object", "label", "size", "positives", "effective_positives", "weight", "box_weight"),
    *("best_iou", "best_score"),
)


@dataclass
class Supervision:
    """Statistics of one stage of one method, accumulated over images."""

    images: int = 0
    rows: list[tuple[float, ...]] = field(default_factory=list)  # ``COLUMNS`` of every object
    positives_by_stride: dict[float, int] = field(default_factory=dict)  # regions have stride 1
    positives: int = 0
    ambiguous: int = 0  # positives whose center lies in several objects
    multi_object: int = 0  # positives of several objects at once, which only soft assignments have
    histograms: dict[str, np.ndarray] = field(
        default_factory=lambda: {kind: np.zeros(len(LOG_WEIGHT_EDGES) - 1) for kind in KINDS}
    )
    zero_weights: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    negatives: np.ndarray = field(
        default_factory=lambda: np.zeros((2, 10))
    )  # number and weight of negatives by IoU of the predicted box (regions, queries: of the prior)
    score_iou: list[np.ndarray] = field(default_factory=list)  # scores and IoU of positives, (2,n)
    classes: dict[int, dict[str, float]] = field(default_factory=dict)  # by data set class: sums and running statistics
    class_agnostic: bool = False  # the stage has one class for all objects

    def add(self, stage: Stage, scale: np.ndarray, labels: np.ndarray, classes: Sequence[int] = ()) -> None:
        """Add one image.

        Args:
            stage: a batch of this image alone, on the CPU.
            scale: (4,) factor from its boxes to pixels of the image.
            labels: (n,) data set class of each object.
            classes: data set class of each class of the model, -1: none; by default there are no negative weights of
                classes.
        """
        view, image = stage.image_view(0), self.images
        factor = torch.as_tensor(scale, dtype=view.objects.dtype)
        sides = (view.objects[:, 2:] - view.objects[:, :2]) * factor[:2]
        num_objects = torch.zeros_like(view.index)  # whose positive each prior is
        for number in view.object_indices:
            one = view.object_view(number)
            num_objects += one.assigned
            weight = one.positive.sum()
            effective = weight.square() / one.positive.square().sum() if weight > 0 else weight
            size = sides[number].prod().clamp(min=0).sqrt()
            weights = weight, one.regression.sum()
            values = (size, one.assigned.sum(), effective, *weights, one.iou.max(), one.score.max())
            self.rows.append((image, number, int(labels[number]), *(float(value) for value in values)))
            self.score_iou.append(torch.stack((one.score, one.iou))[:, one.assigned].numpy())
            self._count_strides(stage, one.assigned)
        positive = num_objects > 0
        self._add_classes(stage, labels, classes)
        self.images += 1
        self.positives += int(positive.sum())
        self.ambiguous += int((positive & (view.objects_at_center > 1)).sum())
        self.multi_object += int((num_objects > 1).sum())
        self._count_weights(stage, positive)

    def _add_classes(self, stage: Stage, labels: np.ndarray, classes: Sequence[int]) -> None:
        objects = stage.truth.valid[0].nonzero().flatten().tolist()
        own = stage.truth.labels[0].tolist()
        self.class_agnostic |= stage.weights.negative.shape[2] != len(classes)
        self.class_agnostic |= any(classes[own[number]] != labels[number] for number in objects if classes)
        if self.class_agnostic:
            self.classes.clear()
            return
        negative = stage.weights.negative[0].double().sum(0).tolist()
        statistics = {name: values.tolist() for name, values in stage.class_statistics.items()}
        for number, label in enumerate(classes):
            if label >= 0:
                one = self.classes.setdefault(int(label), {"negative_weight": 0.0})
                one["negative_weight"] += negative[number]
                one |= {name: values[number] for name, values in statistics.items()}

    def _count_strides(self, stage: Stage, assigned: Tensor) -> None:
        strides, counts = stage.priors.strides[assigned].unique(return_counts=True)
        for stride, count in zip(strides.tolist(), counts.tolist(), strict=True):
            self.positives_by_stride[stride] = self.positives_by_stride.get(stride, 0) + count

    def _count_weights(self, stage: Stage, positive: Tensor) -> None:
        for kind in KINDS:
            values = getattr(stage, kind)[0].double().numpy()
            nonzero = values > 0
            logs = np.log10(values[nonzero]).clip(LOG_WEIGHT_EDGES[0], LOG_WEIGHT_EDGES[-1])
            self.histograms[kind] += np.histogram(logs, LOG_WEIGHT_EDGES)[0]
            self.zero_weights[kind] += int((~nonzero).sum())
        negative = stage.in_loss[0] & ~positive
        view = stage.image_view(0)
        overlap = (view.best_overlap if stage.on_grid else view.best_prior_overlap)[1][negative].numpy()
        self.negatives[0] += np.histogram(overlap, IOU_EDGES)[0]
        self.negatives[1] += np.histogram(overlap, IOU_EDGES, weights=stage.negative[0][negative].numpy())[0]

    @property
    def objects(self) -> dict[str, np.ndarray]:
        """A column for each of ``COLUMNS``, a row for each object."""
        table = np.array(self.rows, dtype=np.float64).reshape(-1, len(COLUMNS))
        return dict(zip(COLUMNS, table.T, strict=True))

    def relative(self, name: str) -> np.ndarray:
        """A weight of each object, divided by the mean of the objects of its image (0 where that is 0)."""
        objects = self.objects
        image = objects["image"].astype(int)
        sums, counts = np.bincount(image, objects[name]), np.bincount(image)
        mean = (sums / counts.clip(1))[image]
        relative: np.ndarray = np.divide(objects[name], mean, out=np.zeros_like(mean), where=mean > 0)
        return relative

    def correlation(self) -> float | None:
        """Pearson correlation of score and IoU over positives; ``None`` where there are too few."""
        both = np.concatenate([np.zeros((2, 0)), *self.score_iou], 1)
        if both.shape[1] < 3 or min(both.std(1)) == 0:
            return None
        return float(np.corrcoef(both)[0, 1])

    def to_dict(self, class_names: Sequence[str] = ()) -> dict[str, Any]:
        """Numbers for JSON."""
        objects = self.objects
        objects |= {f"relative_{name}": self.relative(name) for name in ("weight", "box_weight")}
        total = max(float(objects["weight"].sum()), 1e-30)
        sizes = {
            name: _group(objects, (objects["size"] >= low) & (objects["size"] < high), total)
            for name, (low, high) in SIZES.items()
        }
        labels = objects["label"].astype(int)
        classes = {
            _class_name(label, class_names): _group(objects, labels == label, total) | self.classes.get(label, {})
            for label in np.union1d(labels, list(self.classes)).astype(int).tolist()
        }
        return {
            "images": self.images,
            "objects": len(labels),
            "without_positive": int((objects["positives"] == 0).sum()),
            "positives": self.positives,
            "ambiguous": self.ambiguous,
            "multi_object": self.multi_object,
            "positives_per_object": _mean(objects["positives"]),
            "effective_positives_per_object": _mean(objects["effective_positives"]),
            "score_iou_correlation": self.correlation(),
            "positives_by_stride": {f"{stride:g}": n for stride, n in sorted(self.positives_by_stride.items())},
            "by_size": sizes,
            "by_class": classes,
            "log10_weight_edges": LOG_WEIGHT_EDGES.tolist(),
            "weight_histograms": {kind: self.histograms[kind].astype(int).tolist() for kind in KINDS},
            "zero_weights": self.zero_weights,
            "negatives_by_iou": {
                "count": self.negatives[0].astype(int).tolist(),
                "weight": self.negatives[1].tolist(),
            },
        }

    def to_csv(self, method: str, stage: str, class_names: Sequence[str] = ()) -> list[list[object]]:
        """A row of ``CSV_COLUMNS`` for each object."""
        return [
            [
                *(method, stage, int(row[0]), int(row[1]), _class_name(int(row[2]), class_names)),
                *(f"{value:.6g}" for value in row[3:]),
            ]
            for row in self.rows
        ]


def flat_rows(stages: Sequence[Mapping[str, object]]) -> list[list[object]]:
    """The numbers of ``to_dict`` as a table: method, stage, name (``by_size.small.objects``), value."""
    rows = []
    for stage in stages:
        rest = {name: value for name, value in stage.items() if name not in ("method", "stage")}
        rows += [[stage["method"], stage["stage"], name, value] for name, value in _leaves("", rest)]
    return rows


def _leaves(path: str, value: object) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list):
        parts = dict(enumerate(value)).items()
    else:
        return [(path, "" if value is None else value)]
    return [leaf for name, part in parts for leaf in _leaves(f"{path}.{name}" if path else str(name), part)]


CSV_COLUMNS = ("method", "stage", "image", "object", "class", *COLUMNS[3:])


def csv_text(rows: Sequence[Sequence[object]], columns: Sequence[str] = CSV_COLUMNS) -> str:
    """A table as CSV; by default that of the objects of all methods."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


@dataclass
class AssignmentAgreement:
    """Jaccard index of the positives and of the weights of pairs of methods, accumulated over images."""

    sums: dict[tuple[str, str], list[float]] = field(default_factory=dict)  # see ``_overlap``

    def add(self, stages: Mapping[str, Stage]) -> None:
        """Add one image: the stage of each method, each a batch of this image alone. Different priors are skipped."""
        names = list(stages)
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                if same_priors(stages[first], stages[second]):
                    sums = self.sums.setdefault((first, second), [0.0, 0.0, 0.0, 0.0])
                    for k, value in enumerate(_overlap(stages[first], stages[second])):
                        sums[k] += value

    def to_list(self) -> list[dict[str, object]]:
        """For each pair of methods: intersection over union of the positives, and of the weights, in [0,1]."""
        return [
            {
                "methods": list(pair),
                "positive_jaccard": both / either if either else None,
                "weight_jaccard": minimum / maximum if maximum else None,
            }
            for pair, (both, either, minimum, maximum) in self.sums.items()
        ]


def same_priors(first: Stage, second: Stage) -> bool:
    """Whether two stages have priors with the same centers and strides (the sizes of anchors may differ)."""
    a, b = first.priors, second.priors
    if a.level_sizes != b.level_sizes or a.boxes.shape[1] != b.boxes.shape[1]:
        return False
    return bool(torch.allclose(a.centers, b.centers, atol=0.5)) and bool(torch.equal(a.strides, b.strides))


def _overlap(first: Stage, second: Stage) -> tuple[float, float, float, float]:
    """Sizes of the intersection and the union of the positives; sums of the minimum and maximum of the weights.

    The weights of each object are normalized to a sum of 1.
    """
    a, b = first.image_view(0), second.image_view(0)
    total = torch.zeros(4, dtype=torch.float64)
    for number in a.object_indices:
        one, two = a.object_view(number), b.object_view(number)
        weight, other = (view.positive / view.positive.sum().clamp(min=1e-30) for view in (one, two))
        sums = ((one.assigned & two.assigned).sum(), (one.assigned | two.assigned).sum())
        total += torch.stack([*sums, torch.minimum(weight, other).sum(), torch.maximum(weight, other).sum()]).double()
    both, either, minimum, maximum = total.tolist()
    return both, either, minimum, maximum


def _group(objects: Mapping[str, np.ndarray], mask: np.ndarray, total: float) -> dict[str, object]:
    return {
        "objects": int(mask.sum()),
        "positives": int(objects["positives"][mask].sum()),
        "positive_weight": float(objects["weight"][mask].sum()),
        "weight_fraction": float(objects["weight"][mask].sum()) / total,
        "relative_weight": _mean(objects["relative_weight"][mask]),
        "relative_box_weight": _mean(objects["relative_box_weight"][mask]),
        "positives_per_object": _mean(objects["positives"][mask]),
        "without_positive": int((objects["positives"][mask] == 0).sum()),
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def _class_name(label: int, class_names: Sequence[str]) -> str:
    return class_names[label] if 0 <= label < len(class_names) and class_names[label] else str(label)
