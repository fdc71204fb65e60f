"""Measurements of Zong et al. 2023 on the images of a data set, for several methods.

Each function takes methods (models with the classes of the data) and images, and returns an object by method name whose
``to_dict()`` gives the numbers. Images are processed one at a time, in evaluation mode, at the size of each model's
input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from poise.detectors.parts import has_encoder, has_pyramid
from poise.lab.annotated_image import AnnotatedImage
from poise.lab.attention import positive_query_attention
from poise.lab.auxiliary_queries import ImageQueries, QueryDistances, image_queries
from poise.lab.conflict import HeadConflict, activation_maps
from poise.lab.instability import Instability, add_changes, match_stages
from poise.lab.methods import Method
from poise.lab.separation import Separation, box_mask, discriminability
from poise.structures import Batch

ScoreMap = Callable[[Method, Batch], Tensor]  # (h,w) in [0,1] of a batch of one image


class NoFeatures(ValueError):
    """The model has no feature maps."""


class NotComparable(ValueError):
    """Two models have no priors in common that could be compared."""


@dataclass
class MapExample:
    """An image of a figure, and a map over it for each method."""

    image: AnnotatedImage
    maps: dict[str, np.ndarray] = field(default_factory=dict)


def measure_separation(
    methods: Sequence[Method], images: Iterable[AnnotatedImage], score_map: ScoreMap, num_examples: int = 0
) -> tuple[dict[str, Separation], list[MapExample]]:
    """IoF-IoB curves of each method, and the maps of the first ``num_examples`` images with objects."""
    results, examples = {method.name: Separation() for method in methods}, list[MapExample]()
    for image in images:
        example = MapExample(image)
        for method in methods:
            batch = method.batch(image)
            scores = score_map(method, batch).cpu()
            results[method.name].add(image.name, scores, *image_masks(batch))
            example.maps[method.name] = scores.numpy()
        if len(examples) < num_examples and not image.crowd.all():
            examples.append(example)
    return results, examples


def image_masks(batch: Batch) -> tuple[Tensor, Tensor]:
    """Foreground and background (h,w) bool of a batch of one image, on the CPU; crowds are neither."""
    truth, size = batch.truth, (int(batch.truth.sizes[0, 0]), int(batch.truth.sizes[0, 1]))
    foreground = box_mask(truth.boxes[0][truth.valid[0]], size)
    ignored = box_mask(truth.boxes[0][truth.crowd[0]], size)
    return foreground.cpu(), (~foreground & ~ignored).cpu()


@torch.no_grad()
def feature_scores(method: Method, batch: Batch, source: str = "auto") -> Tensor:
    """Discriminability of a model's features, (h,w) in [0,1].

    Args:
        source: ``auto``: the encoder's memory where there is an encoder, else the neck's pyramid; or ``neck``,
            ``backbone``.

    Raises:
        NoFeatures: the model has no such part.
    """
    network = method.model.network
    canvas = int(batch.pixels.shape[2]), int(batch.pixels.shape[3])
    size = int(batch.truth.sizes[0, 0]), int(batch.truth.sizes[0, 1])
    if source == "auto" and has_encoder(network):
        maps = network.encode(batch.pixels, batch.truth.sizes).maps()
    elif has_pyramid(network):
        maps = network.backbone(batch.pixels)
        maps = maps if source == "backbone" else network.neck(maps)
    else:
        raise NoFeatures(f"'{method.name}' has no feature maps: give a checkpoint or run folder, not an exported file")
    return discriminability([level[0] for level in maps], canvas, size)


def attention_scores(method: Method, batch: Batch, layer: int = -1) -> Tensor:
    """Attention of the positive queries of a decoder layer, (h,w) in [0,1]; zeros where there is no positive query."""
    attention = positive_query_attention(method.model.network, batch, layer, method.name)[0]
    canvas = int(batch.pixels.shape[2]), int(batch.pixels.shape[3])
    return attention.score_map(canvas, (int(batch.truth.sizes[0, 0]), int(batch.truth.sizes[0, 1])))


def measure_instability(
    series: Sequence[Sequence[Method]], images: Iterable[AnnotatedImage], seed: int = 0
) -> dict[tuple[str, str], dict[str, Instability]]:
    """Changes of each stage from each state of a training to the next, over images with objects.

    Raises:
        NotComparable: two states have no stage with the same priors.
    """
    steps = [pair for states in series for pair in pairwise(states)]
    results: dict[tuple[str, str], dict[str, Instability]] = {(a.name, b.name): {} for a, b in steps}
    for image in images:
        matched, objects = {}, {}
        for method in (method for states in series for method in states):
            batch = method.batch(image)
            objects[method.name] = int(batch.truth.valid.sum())
            matched[method.name] = match_stages(method.model.network, batch, method.model.progress, seed)
        for a, b in results:
            if objects[a]:
                add_changes(image.name, matched[a], matched[b], objects[a], into=results[a, b])
                if not results[a, b]:
                    raise NotComparable(
                        f"'{a}' ({', '.join(matched[a]) or 'no stages'}) and '{b}' ({', '.join(matched[b]) or 'none'}) "
                        "have no priors in common: give states of one training (train.keep_every keeps a model of each "
                        "epoch)"
                    )
    if not all(results.values()):
        raise NotComparable("none of the images has an object of the models' classes: there is nothing to match")
    return results


def with_objects(
    methods: Sequence[Method], image: AnnotatedImage, results: Mapping[str, HeadConflict | QueryDistances]
) -> Iterator[tuple[Method, Batch]]:
    """Methods for which the image has objects, with its batch; for the others it is counted as without objects."""
    for method in methods:
        batch = method.batch(image)
        if batch.truth.valid.any():
            yield method, batch
        else:
            results[method.name].without_objects += 1


def measure_conflict(
    methods: Sequence[Method], images: Iterable[AnnotatedImage], seed: int = 0, num_examples: int = 0
) -> tuple[dict[str, HeadConflict], list[MapExample]]:
    """Distances between the heads of each model, and the activation maps of the first images with objects."""
    results, examples = {method.name: HeadConflict() for method in methods}, list[MapExample]()
    for image in images:
        example = MapExample(image)
        for method, batch in with_objects(methods, image, results):
            maps = activation_maps(method.model.network, batch, method.model.progress, seed, name=method.name)
            results[method.name].add(maps)
            example.maps.update({f"{method.name}\n{head}": map_.numpy() for head, map_ in maps.items()})
        if len(examples) < num_examples and example.maps:
            examples.append(example)
    return results, examples


@dataclass
class QueryExample:
    """An image of a figure with the queries of each method."""

    image: AnnotatedImage
    queries: dict[str, ImageQueries] = field(default_factory=dict)


def measure_queries(
    methods: Sequence[Method], images: Iterable[AnnotatedImage], seed: int = 0, num_examples: int = 0
) -> tuple[dict[str, QueryDistances], list[QueryExample]]:
    """Distances between the queries of each model, and the queries of the first images with objects."""
    results, examples = {method.name: QueryDistances() for method in methods}, list[QueryExample]()
    for image in images:
        example = QueryExample(image)
        for method, batch in with_objects(methods, image, results):
            (queries,) = image_queries(method.model.network, batch, method.model.progress, seed, name=method.name)
            results[method.name].add(image.name, queries)
            example.queries[method.name] = queries
        if len(examples) < num_examples and example.queries:
            examples.append(example)
    return results, examples
