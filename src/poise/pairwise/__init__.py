"""Sets of (object, prior) pairs: the one room that knows about dense, sparse and chunked pairs.

An assigner compares every object with every prior, although about one pair in a hundred matters. Accelerators and
captured graphs compute all pairs with a mask; a CPU lists the pairs that matter. Both give the same results, bit by
bit. Assigners and criteria import this interface only; :mod:`poise.pairwise.stored_pairs` chooses between the two.

Shapes: B images, g objects of a chunk (of G), N priors, C classes, P listed pairs.
"""

from poise.pairwise.chunks import (
    BestObject,
    CompactPriors,
    best_iou,
    chunks_of_objects,
    highest_value_wins,
    nearest_per_level,
    none_left,
    object_slices,
    sum_by_class,
)
from poise.pairwise.pairs import Pairs
from poise.pairwise.stored_pairs import (
    TINY,
    Objects,
    accumulate_dtype,
    all_pairs,
    allows_dynamic_shapes,
    dense_from_mask,
    from_index,
    from_mask,
    inside,
    only_finite,
    overlapping,
    smallest,
    sort_keys,
)

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
    "smallest",
    "sort_keys",
    "sum_by_class",
]
