"""What an exported file says of itself: enough to preprocess images for it and to read its outputs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from poise.detectors import DetectionModel
from poise.postprocess import PostProcess, best_pairs, best_places
from poise.preprocess import Preprocess

KEY = "poise"  # of the file's metadata
FORMAT = "poise-export-1"
SELECTIONS = {function.__name__: function for function in (best_pairs, best_places)}


@dataclass(frozen=True)
class Card:
    """A model without its network."""

    model: dict[str, Any]  # name, num_classes, options, class_names, category_ids
    preprocess: Preprocess
    postprocess: PostProcess
    levels: tuple[tuple[int, int], ...]  # stride and predictions a cell of each level
    nms_inside: bool

    @staticmethod
    def of(model: DetectionModel, nms_inside: bool) -> Card:
        description = {
            "name": model.name,
            "num_classes": model.num_classes,
            "options": dict(model.options),
            "class_names": list(model.class_names),
            "category_ids": list(model.category_ids),
        }
        branch: Any = model.network.branch
        levels = tuple((int(stride), int(branch.head.grid.count)) for stride in branch.head.grid.strides)
        return Card(description, model.preprocess, branch.postprocess, levels, nms_inside)

    def level_sizes(self, height: int, width: int) -> tuple[int, ...]:
        """Predictions of each level of an input of this size."""
        return tuple(-(-height // stride) * -(-width // stride) * count for stride, count in self.levels)

    def to_text(self) -> str:
        content = asdict(replace(self, postprocess=PostProcess()))
        content["postprocess"] = {**vars(self.postprocess), "select": self.postprocess.select.__name__}
        return json.dumps({"format": FORMAT, **content})

    @staticmethod
    def from_text(text: str) -> Card:
        """Read back what :meth:`to_text` wrote.

        Raises:
            ValueError: it is not that.
        """
        content = json.loads(text)
        if content.get("format") != FORMAT:
            raise ValueError(f"its description has the format {content.get('format')!r}, not {FORMAT!r}")
        settings, post = content["preprocess"], content["postprocess"]
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
        preprocess = Preprocess(**values)
        postprocess = PostProcess(**{**post, "select": SELECTIONS[post["select"]]})
        levels = tuple((int(stride), int(count)) for stride, count in content["levels"])
        return Card(content["model"], preprocess, postprocess, levels, content["nms_inside"])
