"""Metrics of an evaluation.

Metrics are in [0,1] in Python, in JSON and in COCO results, as in pycocotools; tables, figures and pages for people are
in percent with one decimal. An undefined metric (no object of that size, a class without truth) is NaN in Python,
``null`` in JSON and ``-`` in tables; pycocotools writes -1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from poise.suggestions import plural

NAN = float("nan")
NOT_NUMBERS = ("classes", "counts", "beyond", "extra")  # fields of metrics


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
class MetricsBeyondCoco:
    """Metrics with more than 100 detections per image and class, in [0,1]."""

    max_detections: int
    ap: float
    ap50: float
    ap75: float
    ar: float

    def numbers(self) -> dict[str, float]:
        """The metrics by names that hold the limit, such as ``ap@300``."""
        return {f"{name}@{self.max_detections}": getattr(self, name) for name in ("ap", "ap50", "ap75", "ar")}


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
    beyond: MetricsBeyondCoco | None = None  # where more than 100 detections per image and class count
    extra: dict[str, float] = field(default_factory=dict)  # metrics of plug-ins

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Metrics:
        """Metrics from :meth:`to_dict`; other entries are left out."""
        known = _with_nan({f.name: values[f.name] for f in fields(cls) if f.name not in NOT_NUMBERS})
        classes = tuple(ClassMetrics(**_with_nan(one)) for one in values["classes"])
        beyond = values.get("beyond")
        beyond = None if beyond is None else MetricsBeyondCoco(**_with_nan(beyond))
        extra = _with_nan(values.get("extra", {}))
        whole: dict[str, Any] = {
            "classes": classes,
            "counts": Counts(**values["counts"]),
            "beyond": beyond,
            "extra": extra,
        }
        return cls(**{**known, **whole})

    def numbers(self) -> dict[str, float]:
        """The metrics over all classes by name, in [0,1]; those beyond 100 detections as ``ap@300``."""
        return {**headline(self), **(self.beyond.numbers() if self.beyond is not None else {}), **self.extra}

    def to_dict(self) -> dict[str, object]:
        """All metrics in [0,1] as values for JSON; undefined ones are ``None``."""
        return jsonable(asdict(self))

    def table(self) -> str:
        """Metrics and classes as text, in percent."""
        limit = f"@{self.beyond.max_detections}" if self.beyond is not None else ""
        return text_table(self.numbers(), self.classes, self.counts, limit)


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
    extra: dict[str, float] = field(default_factory=dict)  # metrics of plug-ins

    def numbers(self) -> dict[str, float]:
        """The metrics over all classes by name, in [0,1]."""
        return {**headline(self), **self.extra}

    def to_dict(self) -> dict[str, object]:
        """All metrics in [0,1] as values for JSON; undefined ones are ``None``."""
        return jsonable(asdict(self))

    def table(self) -> str:
        """Metrics and classes as text, in percent."""
        return text_table(self.numbers(), self.classes, self.counts)


def _with_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: NAN if value is None and name != "frequency" else value for name, value in values.items()}


def headline(metrics: Metrics | LvisMetrics) -> dict[str, float]:
    """The float fields of ``metrics``, in their order."""
    return {f.name: getattr(metrics, f.name) for f in fields(metrics) if f.name not in NOT_NUMBERS}


def jsonable(values: Mapping[str, object]) -> dict[str, object]:
    """``values`` with tuples as lists and numbers that are not finite as ``None``."""
    return {key: _jsonable(value) for key, value in values.items()}


def _jsonable(value: object) -> object:
    if isinstance(value, dict):
        return jsonable(value)
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text_table(numbers: dict[str, float], classes: Sequence[ClassMetrics], counts: Counts, limit: str = "") -> str:
    """Two tables in percent: the metrics, then the classes by descending AP, headed ``AP@300`` with a ``limit``."""
    lines = [f"{name:<12} {percent(value):>5}" for name, value in numbers.items()]
    width = max([5, *(len(one.name) for one in classes)])
    wide = [f"{name}{limit}" for name in ("AP", "AP50")]
    heads = "  ".join(f"{head:>5}" for head in wide)
    lines += ["", f"{'class':<{width}}  {heads}  objects  images  detections"]
    for one in sorted(classes, key=lambda c: (math.isnan(c.ap), -c.ap if not math.isnan(c.ap) else 0, c.name)):
        values = "  ".join(f"{percent(v):>{len(h)}}" for v, h in zip((one.ap, one.ap50), wide, strict=True))
        figures = f"{values}  {one.objects:>7}  {one.images:>6}  {one.detections:>10}"
        lines.append(f"{one.name:<{width}}  {figures}")
    ignored = f", {plural(counts.ignored, 'ignored region')}" if counts.ignored else ""
    lines += [
        "",
        f"{plural(counts.images, 'image')}, {plural(counts.objects, 'object')}{ignored}, "
        f"{plural(counts.detections, 'detection')}",
    ]
    return "\n".join(lines)


def percent(value: float | None) -> str:
    """A metric in [0,1] for people: percent with one decimal, ``-`` where it is undefined (None or NaN)."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}"
