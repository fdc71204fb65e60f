"""Additional page content for DETRs: discriminability of the encoder, positions of queries, conflict of heads."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional

from poise.detectors.parts import is_query_detector
from poise.lab.annotated_image import AnnotatedImage
from poise.lab.auxiliary_queries import QueryDistances, image_queries
from poise.lab.conflict import HeadConflict, SingleHead, activation_maps
from poise.lab.methods import Method
from poise.lab.packing import deflate_base64
from poise.lab.separation import Separation, box_mask, discriminability
from poise.structures import Batch, Progress

MAX_SIDE = 160  # pixels of the longer side of a map on the page


@dataclass
class EncoderPanel:
    """Measurements of one DETR, accumulated over the images of a page."""

    method: Method
    seed: int = 0
    separation: Separation = field(default_factory=Separation)
    distances: QueryDistances = field(default_factory=QueryDistances)
    conflict: HeadConflict = field(default_factory=HeadConflict)
    several_heads: bool = True

    @staticmethod
    def applies_to(method: Method) -> bool:
        """Whether the method has an encoder and queries."""
        return is_query_detector(method.model.network)

    def add(self, image: AnnotatedImage) -> dict[str, object]:
        """Add one image. Returns what the page shows of it: ``score_map`` and ``queries``."""
        network, batch, name = self.method.model.network, self.method.batch(image), self.method.name
        progress, truth = self.method.model.progress, batch.truth
        assert is_query_detector(network)
        height, width = (int(side) for side in truth.sizes[0])
        with torch.no_grad():
            maps = network.encode(batch.pixels, truth.sizes).maps()
        canvas = int(batch.pixels.shape[2]), int(batch.pixels.shape[3])
        scores = discriminability([level[0] for level in maps], canvas, (height, width)).cpu()
        foreground, ignored = (
            box_mask(truth.boxes[0][mask[0]].cpu(), (height, width)) for mask in (truth.valid, truth.crowd)
        )
        self.separation.add(image.name, scores, foreground, ~foreground & ~ignored)
        queries = image_queries(network, batch, progress, self.seed, name=name)[0]
        self.distances.add(image.name, queries)
        self._add_conflict(batch, progress)
        return {"score_map": _thumbnail(scores), "queries": queries.to_dict()}

    def _add_conflict(self, batch: Batch, progress: Progress) -> None:
        if not self.several_heads:
            return
        try:
            self.conflict.add(
                activation_maps(self.method.model.network, batch, progress, self.seed, name=self.method.name)
            )
        except SingleHead:
            self.several_heads = False

    def to_dict(self) -> dict[str, object]:
        """The numbers over all images; ``conflict`` is None where there are not several heads."""
        conflict = self.conflict.to_dict() if self.several_heads and self.conflict.heads else None
        return {
            "separation": self.separation.to_dict(),
            "distances": self.distances.to_dict(),
            "conflict": conflict,
        }


def _thumbnail(scores: torch.Tensor) -> dict[str, object]:
    """Shrink a map in [0,1] for the page; values are coded as 0 to 255 between its minimum and maximum."""
    height, width = scores.shape
    factor = min(1.0, MAX_SIDE / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    shrunk = functional.interpolate(scores[None, None], size=size, mode="area")[0, 0]
    low, high = float(shrunk.min()), float(shrunk.max())
    codes = ((shrunk - low) / max(high - low, 1e-9) * 255).round().numpy().astype(np.uint16).ravel()
    source = {"names": ["score"], "length": len(codes), "max": {}, "data": deflate_base64([codes])}
    return {"size": [size[1], size[0]], "range": [round(low, 6), round(high, 6)], **source}
