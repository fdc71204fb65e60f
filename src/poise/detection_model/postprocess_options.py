"""Change the settings of a model's post-processing without building the model again."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from typing import Any

from torch import nn

from poise.detection_model.model import DetectionModel


def with_postprocess_options(
    model: DetectionModel,
    *,
    score_threshold: float | None = None,
    nms_threshold: float | None = None,
    max_detections: int | None = None,
    nms_similarity: str | None = None,
) -> DetectionModel:
    """Return a model with the same weights and other settings of its post-processing.

    Args:
        score_threshold: detections with a lower score are dropped before NMS. The model's own threshold stays where
            it is lower.
        nms_threshold: IoU above which the lower-scored of two boxes of a class is dropped.
        max_detections: detections per image.
        nms_similarity: what ``nms_threshold`` is compared with: ``iou``, ``nwd(scale=16.0)``, ``simd``, ``gcd``.

    Raises:
        ValueError: the model has no post-processing with this setting, or a value is out of range.
    """
    wanted = {"nms_threshold": nms_threshold, "max_detections": max_detections, "nms_similarity": nms_similarity}
    changes: dict[str, object] = {name: value for name, value in wanted.items() if value is not None}
    if not changes and score_threshold is None:
        return model
    known = {field.name for one in _postprocesses(model.network) for field in fields(one)}
    for name in changes:
        if name not in known:
            reason = "it has no NMS" if name.startswith("nms") else "its post-processing is fixed"
            raise ValueError(f"{name} cannot be set for '{model.name}': {reason}")
    if not known:
        return model
    return model.with_network(_replaced(model.network, changes, score_threshold))


def max_detections_of(model: nn.Module) -> int | None:
    """Return the detections per image that a model returns at most; None where it does not say."""
    limits = [getattr(one, "max_detections", None) for one in _postprocesses(getattr(model, "network", model))]
    return min((limit for limit in limits if limit is not None), default=None)


def _postprocesses(network: nn.Module) -> list[Any]:
    return [found for module in network.modules() if (found := _postprocess(module)) is not None]


def _postprocess(module: nn.Module) -> Any:
    """The post-processing of a detector or branch; of an exported file only where the file leaves it to poise."""
    metadata = getattr(module, "metadata", None)
    if metadata is not None:
        return None if metadata.outputs == "detections" else metadata.postprocess
    return getattr(module, "postprocess", None)


def _replaced(module: nn.Module, changes: dict[str, object], score_threshold: float | None) -> Any:
    """The module, copied where it or a part of it has a post-processing; all weights are shared."""
    post = _postprocess(module)
    parts = {name: _replaced(part, changes, score_threshold) for name, part in module.named_children()}
    same = all(parts[name] is part for name, part in module.named_children())
    if post is None and same:
        return module
    clone = copy.copy(module)
    clone.__dict__["_modules"] = {**module._modules, **parts}
    if post is not None:
        own = {field.name for field in fields(post)}
        values = {name: value for name, value in changes.items() if name in own}
        if score_threshold is not None and "score_threshold" in own:
            values["score_threshold"] = min(score_threshold, post.score_threshold)
        changed = replace(post, **values)
        if hasattr(module, "metadata"):
            clone.metadata = replace(module.metadata, postprocess=changed)  # type: ignore[type-var]
        else:
            clone.postprocess = changed
    return clone
