"""Metrics of an evaluation.

Metrics are in [0,1] in Python, in JSON and in COCO results, as in pycocotools; tables, figures and pages for people are
in percent with one decimal. An undefined metric (no object of that size, a class without truth) is NaN in Python,
``null`` in JSON and ``-`` in tables; pycocotools writes -1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

NAN = float("nan")


@dataclass(frozen=True)
class ClassMetrics:
    """AP and AP50 of one class in [0,1] (NaN without truth), and numbers of objects, images and detections."""

    name: str
    category_id: int
    ap: float
    ap50: float
    objects: int  # to be found: neither crowd nor ignored
    images: int  # with at least one of them
    detections: int
    frequency: str | None = None  # LVIS: r, c or f


@dataclass(frozen=True)
class Counts:
    """Numbers of images, objects and detections of an evaluation."""

    images: int
    objects: int
    ignored: int  # crowd and ignored regions
    detections: int


@dataclass(frozen=True)
class Metrics:
    """COCO's twelve metrics, all in [0,1]; AP and AR without a suffix are means over IoU 0.50:0.05:0.95."""

    ap: float
    ap50: float
    ap75: float
    ap_small: float  # area < 32²
    ap_medium: float  # 32² to 96²
    ap_large: float  # > 96²
    ar1: float  # recall with one detection per image and class
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    classes: tuple[ClassMetrics, ...]
    counts: Counts

    def numbers(self) -> dict[str, float]:
        """The metrics over all classes by name, in [0,1]."""
        return headline(self)

    def to_dict(self) -> dict[str, Any]:
        """All metrics in [0,1] as values for JSON; undefined ones are ``None``."""
        return jsonable(asdict(self))

    def table(self) -> str:
        """Metrics and classes as text, in percent."""
        return text_table(self.numbers(), self.classes, self.counts)


@dataclass(frozen=True)
class LvisMetrics:
    """LVIS's thirteen metrics, all in [0,1], with at most 300 detections per image."""

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ap_rare: float  # classes in 1-10 training images
    ap_common: float  # 11-100
    ap_frequent: float  # > 100
    ar300: float
    ar_small: float
    ar_medium: float
    ar_large: float
    classes: tuple[ClassMetrics, ...]
    counts: Counts

    def numbers(self) -> dict[str, float]:
        """The metrics over all classes by name, in [0,1]."""
        return headline(self)

    def to_dict(self) -> dict[str, Any]:
        """All metrics in [0,1] as values for JSON; undefined ones are ``None``."""
        return jsonable(asdict(self))

    def table(self) -> str:
        """Metrics and classes as text, in percent."""
        return text_table(self.numbers(), self.classes, self.counts)


def headline(metrics: Metrics | LvisMetrics) -> dict[str, float]:
    """The float fields of ``metrics``, in their order."""
    return {f.name: getattr(metrics, f.name) for f in fields(metrics) if f.name not in ("classes", "counts")}


def jsonable(value: Any) -> Any:
    """``value`` with tuples as lists and numbers that are not finite as ``None``."""
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text_table(numbers: dict[str, float], classes: Sequence[ClassMetrics], counts: Counts) -> str:
    """Two tables in percent: the metrics, then the classes by descending AP."""
    lines = [f"{name:<12} {_percent(value)}" for name, value in numbers.items()]
    width = max([5, *(len(one.name) for one in classes)])
    lines += ["", f"{'class':<{width}}     AP   AP50  objects  images  detections"]
    for one in sorted(classes, key=lambda c: (math.isnan(c.ap), -c.ap if not math.isnan(c.ap) else 0, c.name)):
        figures = f"{_percent(one.ap)}  {_percent(one.ap50)}  {one.objects:>7}  {one.images:>6}  {one.detections:>10}"
        lines.append(f"{one.name:<{width}}  {figures}")
    ignored = f", {counts.ignored} ignored regions" if counts.ignored else ""
    lines += ["", f"{counts.images} images, {counts.objects} objects{ignored}, {counts.detections} detections"]
    return "\n".join(lines)


def _percent(value: float) -> str:
    return "    -" if math.isnan(value) else f"{100 * value:5.1f}"
