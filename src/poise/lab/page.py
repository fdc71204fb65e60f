"""The lab page: one self-contained HTML file."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np

from poise.lab.annotated_image import AnnotatedImage, stages_to_dict
from poise.lab.encoders import EncoderPanel
from poise.lab.methods import ImageResult
from poise.lab.statistics import AssignmentAgreement, Supervision

MAX_MEGABYTES = 40.0  # of a page, by default
MAX_POINTS = 1500  # objects in the page's figure of positives by size


@dataclass
class LabPage:
    """A page that is built image by image. Images beyond its maximum size only enter the statistics.

    Args:
        methods: names of the methods compared.
        class_names: class names of the data set.
        max_megabytes: maximum size of the images on the page.
    """

    title: str
    methods: Sequence[str]
    class_names: Sequence[str]
    max_megabytes: float = MAX_MEGABYTES
    notes: list[str] = field(default_factory=list)
    descriptions: Mapping[str, str] = field(default_factory=dict)  # headings of methods, where not their names
    image_data: list[str] = field(default_factory=list)  # JSON of each image on the page
    image_names: list[str] = field(default_factory=list)
    num_left_out: int = 0
    downscaled: bool = False
    without_weights: dict[str, None] = field(default_factory=dict)  # methods whose criterion gives no weights
    supervision: dict[tuple[str, str], Supervision] = field(default_factory=dict)  # by method and stage
    agreement: dict[str, AssignmentAgreement] = field(default_factory=dict)  # by stage
    encoders: dict[str, EncoderPanel] = field(default_factory=dict)  # of the DETRs among the methods

    def add(
        self,
        image: AnnotatedImage,
        results: Mapping[str, ImageResult],
        show: bool = True,
        encoders: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        """Add the results of each method on one image; with ``show=False`` to the statistics only.

        Args:
            encoders: results of ``self.encoders`` for the image, by method.
        """
        self.without_weights |= {method: None for method, one in results.items() if one.unit_weights}
        for method, one in results.items():
            for name, stage in one.stages.items():
                self.supervision.setdefault((method, name), Supervision()).add(
                    stage, one.scale, image.labels, one.classes.tolist()
                )
        for name in dict.fromkeys(name for one in results.values() for name in one.stages):
            stages = {method: one.stages[name] for method, one in results.items() if name in one.stages}
            self.agreement.setdefault(name, AssignmentAgreement()).add(stages)
        if show:
            self._add_to_page(image, results, encoders or {})

    def _add_to_page(
        self, image: AnnotatedImage, results: Mapping[str, ImageResult], encoders: Mapping[str, dict[str, Any]]
    ) -> None:
        methods = {method: stages_to_dict(one.stages, image, one.scale, one.classes) for method, one in results.items()}
        text = _to_json({**image.to_dict(), "methods": methods, "encoders": encoders})
        if self.image_data and sum(map(len, self.image_data)) + len(text) > self.max_megabytes * 1e6:
            self.num_left_out += 1
            return
        self.downscaled |= image.scale < 1
        self.image_data.append(text)
        self.image_names.append(image.name)

    def to_dict(self) -> dict[str, Any]:
        """Statistics over all images."""
        stages = [
            {"method": method, "stage": name, **one.to_dict(self.class_names)}
            for (method, name), one in self.supervision.items()
        ]
        agreement = {name: one.to_list() for name, one in self.agreement.items()}
        encoders = {name: one.to_dict() for name, one in self.encoders.items()}
        return {"stages": stages, "agreement": agreement, "encoders": encoders}

    def html(self) -> str:
        """Text of the HTML file."""
        statistics = self.to_dict()
        for stage, one in zip(statistics["stages"], self.supervision.values(), strict=True):
            stage["points"] = _points(one)
        data = {
            "title": self.title,
            "methods": list(self.methods),
            "descriptions": dict(self.descriptions),
            "class_names": list(self.class_names),
            "notes": self.all_notes(),
            "images": len(self.image_data),
            "image_names": self.image_names,
            **statistics,
        }
        title = html.escape(self.title)
        scripts = [
            f'<script type="application/json" id="image-{i}">{text}</script>' for i, text in enumerate(self.image_data)
        ]
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{title}</title><style>{_asset('lab.css')}</style></head><body>{_asset('lab.html')}"
            f'<script type="application/json" id="data">{_to_json(data)}</script>{"".join(scripts)}'
            f"<script>{_asset('lab.js')}{_asset('encoders.js')}start();</script></body></html>\n"
        )

    def all_notes(self) -> list[str]:
        """``notes`` and what follows from the images that were added."""
        notes = list(self.notes)
        notes += [
            f"the criterion of {method} gives no loss weights: the weight of every assigned prior is shown as 1"
            for method in self.without_weights
        ]
        if self.num_left_out:
            images = "image is" if self.num_left_out == 1 else "images are"
            notes.append(
                f"{self.num_left_out} more {images} in the statistics but not on the page: "
                f"it would exceed {self.max_megabytes:g} MB"
            )
        if self.downscaled:
            notes.append("large images are shown downscaled; sizes and weights are those of the model's input")
        return notes


def _points(one: Supervision) -> list[list[float]]:
    """Size and number of positives of objects; an evenly spaced selection where there are many."""
    objects = one.objects
    both = np.stack((objects["size"], objects["positives"]), 1)
    step = max(1, -(-len(both) // MAX_POINTS))
    rounded: list[list[float]] = np.round(both[::step], 1).tolist()
    return rounded


def _to_json(value: object) -> str:
    """JSON that is safe within a script element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _asset(name: str) -> str:
    return (files("poise.lab") / "assets" / name).read_text(encoding="utf-8")
