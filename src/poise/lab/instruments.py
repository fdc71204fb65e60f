"""The article's instruments on the images of a data set, method beside method.

Each takes methods (models with the data's classes) and photographs, and gives an object for each method's name whose
``to_dict()`` holds the numbers. Images are taken one at a time, in evaluation mode, at the size of each model's input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from poise.detectors.query import QueryDetector
from poise.lab.attention import attention_of_positives
from poise.lab.auxiliary_queries import QueryDistances, QueryPlaces, query_places
from poise.lab.conflict import Conflict, activations
from poise.lab.instability import Instability, compare, matching_of
from poise.lab.methods import Method
from poise.lab.scene import Photograph
from poise.lab.separation import Separation, covered, discriminability
from poise.structures import Batch

Scores = Callable[[Method, Batch], Tensor]  # (h,w) in [0,1] of a batch of one image


class NoFeatures(ValueError):
    """The model has no maps to look at."""


class NothingInCommon(ValueError):
    """Two models have no places in common that could be compared."""


@dataclass
class Shown:
    """An image of a figure: the photograph, and a map over it for each method."""

    photograph: Photograph
    maps: dict[str, np.ndarray] = field(default_factory=dict)


def separations(
    methods: Sequence[Method], photographs: Iterable[Photograph], scores: Scores, shown: int = 0
) -> tuple[dict[str, Separation], list[Shown]]:
    """The curves of each method, and the maps of the first ``shown`` images that have objects."""
    found, pictures = {method.name: Separation() for method in methods}, list[Shown]()
    for photograph in photographs:
        picture = Shown(photograph)
        for method in methods:
            batch = method.batch(photograph)
            map_, inside, outside = separated(batch, scores(method, batch))
            found[method.name].add(photograph.name, map_, inside, outside)
            picture.maps[method.name] = map_.numpy()
        if len(pictures) < shown and not photograph.crowd.all():
            pictures.append(picture)
    return found, pictures


def separated(batch: Batch, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (h,w), foreground and background of a batch of one image, on the CPU."""
    truth, size = batch.truth, (int(batch.truth.sizes[0, 0]), int(batch.truth.sizes[0, 1]))
    foreground = covered(truth.boxes[0][truth.valid[0]], size)
    ignored = covered(truth.boxes[0][truth.crowd[0]], size)
    return scores.cpu(), foreground.cpu(), (~foreground & ~ignored).cpu()


@torch.no_grad()
def feature_scores(method: Method, batch: Batch, of: str = "auto") -> Tensor:
    """Discriminability of a model's features.

    Args:
        of: ``auto``: the encoder's memory where there is an encoder, else the neck's pyramid; or ``neck``,
            ``backbone``.

    Raises:
        NoFeatures: the model has no such part.
    """
    network = method.model.network
    canvas = int(batch.pixels.shape[2]), int(batch.pixels.shape[3])
    size = int(batch.truth.sizes[0, 0]), int(batch.truth.sizes[0, 1])
    if not hasattr(network, "backbone") or not hasattr(network, "neck"):
        raise NoFeatures(f"'{method.name}' shows no features: give a checkpoint or run folder, not an exported file")
    if of == "auto" and isinstance(network, QueryDetector):
        maps = network.encode(batch.pixels, batch.truth.sizes).maps()
    else:
        maps = network.backbone(batch.pixels)  # type: ignore[operator]
        maps = maps if of == "backbone" else network.neck(maps)  # type: ignore[operator]
    return discriminability([level[0] for level in maps], canvas, size)


def attention_scores(method: Method, batch: Batch, layer: int = -1) -> Tensor:
    """Where the positive queries of a decoder's layer look; all zero where no object can be matched."""
    looked = attention_of_positives(method.model.network, batch, layer, method.name)[0]
    canvas = int(batch.pixels.shape[2]), int(batch.pixels.shape[3])
    return looked.scores(canvas, (int(batch.truth.sizes[0, 0]), int(batch.truth.sizes[0, 1])))


def instabilities(
    series: Sequence[Sequence[Method]], photographs: Iterable[Photograph], seed: int = 0
) -> dict[tuple[str, str], dict[str, Instability]]:
    """The changes of each stage from each state of a series to the next, over images with objects.

    Raises:
        NothingInCommon: two states have no stage with the same places.
    """
    steps = [pair for states in series for pair in pairwise(states)]
    found: dict[tuple[str, str], dict[str, Instability]] = {(a.name, b.name): {} for a, b in steps}
    for photograph in photographs:
        matched, objects = {}, {}
        for method in (method for states in series for method in states):
            batch = method.batch(photograph)
            objects[method.name] = int(batch.truth.valid.sum())
            matched[method.name] = matching_of(method.model.network, batch, method.model.progress, seed)
        for a, b in found:
            if objects[a]:
                compare(photograph.name, matched[a], matched[b], objects[a], found[a, b])
                if not found[a, b]:
                    raise NothingInCommon(
                        f"'{a}' ({', '.join(matched[a]) or 'no stages'}) and '{b}' ({', '.join(matched[b]) or 'none'}) "
                        "share no places: give states of one training (train.keep_every keeps the model of each epoch)"
                    )
    if not all(found.values()):
        raise NothingInCommon("none of the images has an object of the models' classes: there is nothing to match")
    return found


def with_objects(
    methods: Sequence[Method], photograph: Photograph, found: Mapping[str, Conflict | QueryDistances]
) -> Iterator[tuple[Method, Batch]]:
    """Methods for which the photograph has objects, with its batch; the others count it."""
    for method in methods:
        batch = method.batch(photograph)
        if batch.truth.valid.any():
            yield method, batch
        else:
            found[method.name].without_objects += 1


def conflicts(
    methods: Sequence[Method], photographs: Iterable[Photograph], seed: int = 0, shown: int = 0
) -> tuple[dict[str, Conflict], list[Shown]]:
    """Distances between the heads of each model, and the activation maps of the first images with objects."""
    found, pictures = {method.name: Conflict() for method in methods}, list[Shown]()
    for photograph in photographs:
        picture = Shown(photograph)
        for method, batch in with_objects(methods, photograph, found):
            maps = activations(method.model.network, batch, method.model.progress, seed, method.name)
            found[method.name].add(maps)
            picture.maps.update({f"{method.name}\n{head}": map_.numpy() for head, map_ in maps.items()})
        if len(pictures) < shown and picture.maps:
            pictures.append(picture)
    return found, pictures


@dataclass
class ShownQueries:
    """An image of a figure with the queries of each method."""

    photograph: Photograph
    places: dict[str, QueryPlaces] = field(default_factory=dict)


def placed_queries(
    methods: Sequence[Method], photographs: Iterable[Photograph], seed: int = 0, shown: int = 0
) -> tuple[dict[str, QueryDistances], list[ShownQueries]]:
    """Where the queries of each model lie, and the places of the first images with objects."""
    found, pictures = {method.name: QueryDistances() for method in methods}, list[ShownQueries]()
    for photograph in photographs:
        picture = ShownQueries(photograph)
        for method, batch in with_objects(methods, photograph, found):
            (places,) = query_places(method.model.network, batch, method.model.progress, seed, method.name)
            found[method.name].add(photograph.name, places)
            picture.places[method.name] = places
        if len(pictures) < shown and picture.places:
            pictures.append(picture)
    return found, pictures
