"""Thresholding and non-maximum suppression as nodes of an ONNX graph, or the highest scores where there is no NMS."""

from __future__ import annotations

from typing import Any

import numpy as np

from poise.postprocess import PostProcess


def append_suppression(model: Any, post: PostProcess, size: tuple[int, int] | None) -> Any:
    """Replace the outputs ``boxes`` (1,N,4), ``scores`` (1,N,C) and perhaps ``gate`` by detections.

    These are ``boxes`` (K,4), ``scores`` and ``labels`` (K,), best first, as :class:`poise.postprocess.PostProcess`
    returns them, but without its limit of pairs before NMS: all above the threshold enter. A post-processing without
    NMS becomes one ``TopK`` of all pairs.

    Args:
        size: height and width to which boxes are clipped, less the border of the post-processing; None adds an input
            ``size`` (2,) float32 for them. Without a border boxes are not clipped.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    gated = any(output.name == "gate" for output in graph.output)
    _rename(graph, {name: f"decoded_{name}" for name in ("boxes", "scores", "gate")})
    constants = _constants(post)
    if size is None:
        graph.input.append(helper.make_tensor_value_info("size", TensorProto.FLOAT, [2]))
    else:
        constants["size"] = np.array(size, np.float32)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    selected = _highest_scores() if post.nms_threshold is None else _suppressed()
    graph.node.extend([*_clipping(post.clip_margin is not None), *_candidates(gated), *selected])
    del graph.output[:]
    kinds = {"boxes": (TensorProto.FLOAT, [4]), "scores": (TensorProto.FLOAT, []), "labels": (TensorProto.INT64, [])}
    graph.output.extend(
        helper.make_tensor_value_info(name, kind, ["detections", *rest]) for name, (kind, rest) in kinds.items()
    )
    return model


def _rename(graph: Any, names: dict[str, str]) -> None:
    for node in graph.node:
        for values in (node.input, node.output):
            for i, value in enumerate(values):
                values[i] = names.get(value, value)


def _constants(post: PostProcess) -> dict[str, np.ndarray]:
    return {
        "zero": np.array(0, np.float32),
        "border": np.array(post.clip_margin or 0, np.float32),
        "least_side": np.array(post.min_size, np.float32),
        "threshold": np.array([post.score_threshold], np.float32),
        "nothing": np.array([0], np.float32),
        "overlap": np.array([post.nms_threshold or 0], np.float32),
        "max_detections": np.array([post.max_detections], np.int64),
        "first": np.array([0], np.int64),
        "second": np.array([1], np.int64),
        "third": np.array([2], np.int64),
        "low_sides": np.array([0, 1], np.int64),
        "high_sides": np.array([2, 3], np.int64),
        "sides": np.array([1, 0, 1, 0], np.int64),
        "prior_and_class": np.array([2, 1], np.int64),
        "flat": np.array([-1], np.int64),
    }


def _clipping(wanted: bool) -> list[object]:
    """Nodes of ``clipped`` boxes, or of the boxes as they are."""
    from onnx.helper import make_node as make

    size = make("Gather", ["size", "sides"], ["size_of_sides"], axis=0)
    if not wanted:  # the size is read anyway, because an unused input would be dropped
        return [
            size,
            make("Mul", ["size_of_sides", "zero"], ["no_limit"]),
            make("Add", ["decoded_boxes", "no_limit"], ["clipped"]),
        ]
    return [
        size,
        make("Sub", ["size_of_sides", "border"], ["limit"]),
        make("Max", ["decoded_boxes", "zero"], ["above_zero"]),
        make("Min", ["above_zero", "limit"], ["clipped"]),
    ]


def _candidates(gated: bool) -> list[object]:
    """Nodes of ``usable`` scores: 0 if a box has no area after clipping or its score is not above the threshold."""
    from onnx.helper import make_node as make

    return [
        make("Gather", ["clipped", "low_sides"], ["low"], axis=2),
        make("Gather", ["clipped", "high_sides"], ["high"], axis=2),
        make("Sub", ["high", "low"], ["extent"]),
        make("ReduceMin", ["extent", "third"], ["shorter_side"], keepdims=1),
        make("Greater", ["shorter_side", "least_side"], ["solid"]),
        make("Greater", ["decoded_gate" if gated else "decoded_scores", "threshold"], ["confident"]),
        make("And", ["solid", "confident"], ["selected"]),
        make("Where", ["selected", "decoded_scores", "zero"], ["usable"]),
    ]


def _highest_scores() -> list[object]:
    """Nodes of the pairs with the highest scores above 0, without NMS."""
    from onnx.helper import make_node as make

    return [
        make("Reshape", ["usable", "flat"], ["pair_scores"]),
        make("Greater", ["pair_scores", "zero"], ["positive_pairs"]),
        make("Cast", ["positive_pairs"], ["one_for_each"], to=7),  # int64
        make("ReduceSum", ["one_for_each"], ["usable_count"], keepdims=0),
        make("Reshape", ["usable_count", "second"], ["kept_count"]),
        make("Min", ["kept_count", "max_detections"], ["count"]),
        make("TopK", ["pair_scores", "count"], ["scores", "order"], axis=0),
        make("Shape", ["usable"], ["class_count"], start=2, end=3),
        make("Div", ["order", "class_count"], ["priors"]),
        make("Mod", ["order", "class_count"], ["labels"]),
        make("Squeeze", ["clipped", "first"], ["all_boxes"]),
        make("Gather", ["all_boxes", "priors"], ["boxes"], axis=0),
    ]


def _suppressed() -> list[object]:
    """Nodes of NMS per class and of the best detections of the image."""
    from onnx.helper import make_node as make

    return [
        make("Transpose", ["usable"], ["by_class"], perm=[0, 2, 1]),
        make("NonMaxSuppression", ["clipped", "by_class", "max_detections", "overlap", "nothing"], ["kept"]),
        make("Gather", ["kept", "prior_and_class"], ["pairs"], axis=1),
        make("Squeeze", ["usable", "first"], ["pair_scores"]),
        make("GatherND", ["pair_scores", "pairs"], ["kept_scores"]),
        make("Shape", ["kept_scores"], ["kept_count"]),
        make("Min", ["kept_count", "max_detections"], ["count"]),
        make("TopK", ["kept_scores", "count"], ["scores", "order"], axis=0),
        make("Gather", ["pairs", "order"], ["ordered"], axis=0),
        make("Gather", ["ordered", "first"], ["prior"], axis=1),
        make("Gather", ["ordered", "second"], ["label"], axis=1),
        make("Squeeze", ["label", "second"], ["labels"]),
        make("Squeeze", ["prior", "second"], ["priors"]),
        make("Squeeze", ["clipped", "first"], ["all_boxes"]),
        make("Gather", ["all_boxes", "priors"], ["boxes"], axis=0),
    ]
