"""Another sampler for the regions of a two-stage detector: ``create_model(name, sampler="ohem")``."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from poise.detectors.parts import region_stage
from poise.models.notation import Part
from poise.models.values import build_part
from poise.plugins import load_plugins
from poise.sample import (
    IoUBalanced,
    PositiveNegativeSampler,
    Sampler,
    TakeAll,
    libra_article_sampler,
    libra_sampler,
    ohem_sampler,
    random_sampler,
)

SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "random": random_sampler,
    "balanced": libra_sampler,  # Libra R-CNN, published code
    "article": libra_article_sampler,  # Libra R-CNN, article
    "ohem": ohem_sampler,
    "take_all": TakeAll,
    "positive_negative": PositiveNegativeSampler,
}


def swap_sampler(network: nn.Module, part: Part, model: str) -> bool:
    """Replace the sampler of regions; a bare name keeps the numbers of regions and IoU bins of the model.

    Deterministic models keep theirs, which takes all regions.

    Returns:
        whether the sampler was replaced.

    Raises:
        ValueError: the sampler is unknown, or the model has no sampler of regions.
    """
    stage = region_stage(network)
    if stage is None:
        raise ValueError(f"sampler='{part}': '{model}' is not a two-stage detector, it trains on all of its priors")
    if part.name not in SAMPLERS:
        load_plugins()
    own = stage.sampler
    context: dict[str, int] = {}
    if isinstance(own, PositiveNegativeSampler) and part.options is None:
        context["size"] = own.size
        if isinstance(own.negatives, IoUBalanced):
            context["iou_bins"] = own.negatives.bins
    sampler = build_part(part, "sampler", SAMPLERS, context)
    if isinstance(own, TakeAll):
        return False
    stage.sampler = sampler
    return True
