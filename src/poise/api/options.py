"""Options of prediction: their types, and classes by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypedDict

from poise.suggestions import did_you_mean

if TYPE_CHECKING:
    from poise.inference import Tiling
    from poise.inference.sources import OnBadImage
    from poise.inference.views import TestTimeAugmentation


class PredictOptions(TypedDict, total=False):
    """Keyword arguments of ``Detector.predict`` besides ``stream``; that method explains them."""

    score_threshold: float | Literal["best"]
    nms_threshold: float | None
    max_detections: int | None
    nms_similarity: str | None
    classes: Sequence[str | int] | None
    batch_size: int
    tile: int | Tiling | None
    tta: str | TestTimeAugmentation | None
    on_bad_image: OnBadImage
    max_pixels: int


def label_of(name: str | int, class_names: Sequence[str]) -> int:
    """Return the label of a class that is given by name or label.

    Raises:
        ValueError: no such class; a similar name is suggested.
    """
    if isinstance(name, str) and name in class_names:
        return list(class_names).index(name)
    if isinstance(name, int) and 0 <= name < len(class_names):
        return name
    hint = did_you_mean(str(name), class_names) or f"; the model's classes are {', '.join(class_names[:20])}"
    raise ValueError(f"no class {name!r}{hint}")
