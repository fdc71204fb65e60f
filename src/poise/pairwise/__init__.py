"""Sets of (object, prior) pairs: the one room that knows about dense, sparse and chunked pairs.

An assigner compares every object with every prior, although about one pair in a hundred matters. Accelerators and
captured graphs compute all pairs with a mask ; a CPU lists the pairs that matter
(:mod:`poise.pairwise.pairs`). Both give the same results, bit by bit. Assigners and criteria import this interface
only; :mod:`poise.pairwise.build` chooses the storage.

Shapes: B images, g objects of a chunk (of G), N priors, C classes, P listed pairs.
"""

from poise.pairwise.build import (
    BestObject,
    CompactPriors,
    Objects,
    all_pairs,
    allows_dynamic_shapes,
    best_iou,
    chunks_of_objects,
    dense_from_mask,
    from_index,
    from_mask,
    highest_value_wins,
    inside,
    nearest_per_level,
    none_left,
    object_slices,
    only_finite,
    overlapping,
    plane_elements,
    sum_by_class,
)
from poise.pairwise.pairs import TINY, Pairs, accumulate_dtype, smallest, sort_keys

__all__ = [
    "BestObject",
    "TINY",
    "CompactPriors",
    "Objects",
    "Pairs",
    "accumulate_dtype",
    "all_pairs",
    "allows_dynamic_shapes",
    "best_iou",
    "chunks_of_objects",
    "dense_from_mask",
    "from_index",
    "from_mask",
    "highest_value_wins",
    "inside",
    "nearest_per_level",
    "none_left",
    "object_slices",
    "only_finite",
    "overlapping",
    "plane_elements",
    "smallest",
    "sort_keys",
    "sum_by_class",
]
