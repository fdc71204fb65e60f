"""The page of the lab: one HTML file that needs nothing else, neither network nor neighbors."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np

from poise.lab.encoders import EncoderLook
from poise.lab.methods import Judged
from poise.lab.scene import Photograph, stages_to_dict
from poise.lab.statistics import Agreement, Supervision

MEGABYTES = 40.0  # of a page, by default
MOST_POINTS = 1500  # objects in the page's figure of positives by size


@dataclass
class LabPage:
    """A page that grows image by image until it is full; the numbers go on counting beyond.

    Args:
        methods: what is compared, as the page calls it.
        names: of the classes.
        megabytes: what the file may be large.
    """

    title: str
    methods: Sequence[str]
    names: Sequence[str]
    megabytes: float = MEGABYTES
    notes: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    left_out: int = 0
    shrunk: bool = False
    silent: dict[str, None] = field(default_factory=dict)  # methods that do not say their weights
    supervision: dict[tuple[str, str], Supervision] = field(default_factory=dict)
    agreement: dict[str, Agreement] = field(default_factory=dict)
    encoders: dict[str, EncoderLook] = field(default_factory=dict)  # of the DETRs among the methods

    def add(
        self,
        photograph: Photograph,
        judged: Mapping[str, Judged],
        shown: bool = True,
        encoders: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        """One image as each of the methods sees it; ``shown=False`` only counts it.

        Args:
            encoders: what ``self.encoders`` gave of the image, by method.
        """
        self.silent |= {method: None for method, one in judged.items() if one.assumed}
        for method, one in judged.items():
            for name, stage in one.stages.items():
                self.supervision.setdefault((method, name), Supervision()).add(stage, one.factor, photograph.labels)
        for name in dict.fromkeys(name for one in judged.values() for name in one.stages):
            there = {method: one.stages[name] for method, one in judged.items() if name in one.stages}
            self.agreement.setdefault(name, Agreement()).add(there)
        if shown:
            self._show(photograph, judged, encoders or {})

    def _show(
        self, photograph: Photograph, judged: Mapping[str, Judged], encoders: Mapping[str, dict[str, Any]]
    ) -> None:
        methods = {
            method: stages_to_dict(one.stages, photograph, one.factor, one.classes) for method, one in judged.items()
        }
        text = _safe({**photograph.to_dict(), "methods": methods, "encoders": encoders})
        if self.images and sum(map(len, self.images)) + len(text) > self.megabytes * 1e6:
            self.left_out += 1
            return
        self.shrunk |= photograph.scale < 1
        self.images.append(text)
        self.pictures.append(photograph.name)

    def to_dict(self) -> dict[str, Any]:
        """The numbers over all images."""
        stages = [
            {"method": method, "stage": name, **found.to_dict(self.names)}
            for (method, name), found in self.supervision.items()
        ]
        agreement = {name: found.to_list() for name, found in self.agreement.items()}
        encoders = {name: found.to_dict() for name, found in self.encoders.items()}
        return {"stages": stages, "agreement": agreement, "encoders": encoders}

    def html(self) -> str:
        """The whole file."""
        numbers = self.to_dict()
        for stage, found in zip(numbers["stages"], self.supervision.values(), strict=True):
            stage["points"] = _points(found)
        data = {
            "title": self.title,
            "methods": list(self.methods),
            "names": list(self.names),
            "notes": self.remarks(),
            "images": len(self.images),
            "pictures": self.pictures,
            **numbers,
        }
        title = html.escape(self.title)
        scripts = [
            f'<script type="application/json" id="image-{i}">{text}</script>' for i, text in enumerate(self.images)
        ]
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{title}</title><style>{_asset('lab.css')}</style></head><body>{_asset('lab.html')}"
            f'<script type="application/json" id="data">{_safe(data)}</script>{"".join(scripts)}'
            f"<script>{_asset('lab.js')}{_asset('encoders.js')}start();</script></body></html>\n"
        )

    def remarks(self) -> list[str]:
        """What whoever reads the numbers should know."""
        remarks = list(self.notes)
        remarks += [
            f"{method} does not say what its losses weigh: its assignments are shown, each place with weight 1"
            for method in self.silent
        ]
        if self.left_out:
            many = f"{self.left_out} further images are in the numbers but not on the page"
            remarks.append(f"{many}, which would be larger than {self.megabytes:g} MB")
        if self.shrunk:
            remarks.append(
                "photographs are shown smaller than they are; sizes and weights are those of the model's input"
            )
        return remarks


def _points(found: Supervision) -> list[list[float]]:
    """Size and number of positives of objects, evenly taken where there are many."""
    objects = found.objects
    both = np.stack((objects["size"], objects["positives"]), 1)
    step = max(1, -(-len(both) // MOST_POINTS))
    return np.round(both[::step], 1).tolist()


def _safe(value: Any) -> str:
    """JSON that can stand within a script element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _asset(name: str) -> str:
    return (files("poise.lab") / "assets" / name).read_text(encoding="utf-8")
