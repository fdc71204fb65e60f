"""What the page shows of a DETR beside its weights: what the encoder sees, where queries lie, how far heads differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from poise.detectors.query import QueryDetector
from poise.lab.auxiliary_queries import QueryDistances, query_places
from poise.lab.conflict import Conflict, OneHead, activations
from poise.lab.methods import Method
from poise.lab.packing import packed
from poise.lab.scene import Photograph
from poise.lab.separation import Separation, covered, discriminability

LONGEST = 160  # pixels of the longer side of a map on the page


@dataclass
class EncoderLook:
    """The instruments of ``poise lab`` for DETRs, gathered over the images of a page."""

    method: Method
    seed: int = 0
    separation: Separation = field(default_factory=Separation)
    distances: QueryDistances = field(default_factory=QueryDistances)
    conflict: Conflict = field(default_factory=Conflict)
    heads: bool = True

    @staticmethod
    def fits(method: Method) -> bool:
        """Whether the method has an encoder and queries."""
        return isinstance(method.model.network, QueryDetector)

    def add(self, photograph: Photograph) -> dict[str, Any]:
        """Count one image; what the page shows of it: the map of strengths, and the queries' places."""
        network, batch, name = self.method.model.network, self.method.batch(photograph), self.method.name
        progress, truth = self.method.model.progress, batch.truth
        assert isinstance(network, QueryDetector)
        height, width = (int(side) for side in truth.sizes[0])
        with torch.no_grad():
            maps = network.encode(batch.pixels, truth.sizes).maps()
        canvas = int(batch.pixels.shape[2]), int(batch.pixels.shape[3])
        scores = discriminability([level[0] for level in maps], canvas, (height, width)).cpu()
        inside, left_alone = (
            covered(truth.boxes[0][kind[0]].cpu(), (height, width)) for kind in (truth.valid, truth.crowd)
        )
        self.separation.add(photograph.name, scores, inside, ~inside & ~left_alone)
        places = query_places(network, batch, progress, self.seed, name)[0]
        self.distances.add(photograph.name, places)
        self._compare_heads(batch, progress)
        return {"strength": _small(scores), "places": places.to_dict()}

    def _compare_heads(self, batch: Any, progress: Any) -> None:
        if not self.heads:
            return
        try:
            self.conflict.add(activations(self.method.model.network, batch, progress, self.seed, self.method.name))
        except OneHead:
            self.heads = False

    def to_dict(self) -> dict[str, Any]:
        """The numbers over all images; ``conflict`` only where there are several heads."""
        found = {"separation": self.separation.to_dict(), "distances": self.distances.to_dict()}
        return {**found, "conflict": self.conflict.to_dict() if self.heads and self.conflict.heads else None}


def _small(scores: torch.Tensor) -> dict[str, Any]:
    """A map in [0,1] for the page: shrunk, in 255ths from its least to its greatest value."""
    height, width = scores.shape
    factor = min(1.0, LONGEST / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    shrunk = functional.interpolate(scores[None, None], size=size, mode="area")[0, 0]
    least, most = float(shrunk.min()), float(shrunk.max())
    codes = ((shrunk - least) / max(most - least, 1e-9) * 255).round().numpy().astype(np.uint16).ravel()
    source = {"names": ["strength"], "length": len(codes), "greatest": {}, "data": packed([codes])}
    return {"size": [size[1], size[0]], "ends": [round(least, 6), round(most, 6)], **source}
