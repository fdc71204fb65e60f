"""Group the loss terms of a detector: the decoder's, the encoder's, denoising, each auxiliary head's."""

from __future__ import annotations

import re
from collections.abc import Mapping

GROUPS = (  # the first pattern found in a term's name decides; group 1 of a pattern numbers the auxiliary head
    (r"aux(\d+)$", "auxiliary queries {}"),
    (r"(?:cls|bbox|iou|centerness|dfl|qfl)(\d+)$", "auxiliary head {}"),
    (r"one2many", "one-to-many queries"),
    (r"_mixed$", "one-to-many supervision"),
    (r"\bdn_", "denoising"),
    (r"\benc_", "encoder"),
    (r"\baux_", "assign guidance module"),
    (r"\brpn_", "proposals"),
)
MAX_TERMS = 8  # up to this many terms are shown one by one


def group_of(term: str) -> str:
    """Return the group of a loss term such as ``d0.dn_loss_cls``; without a sign of another it is the decoder's."""
    name = term.replace("loss_", "")
    for pattern, group in GROUPS:
        if found := re.search(pattern, name):
            return group.format(*found.groups())
    return "decoder"


def grouped(terms: Mapping[str, float]) -> dict[str, float]:
    """Return the sums of loss terms by group; up to eight terms are returned as they are."""
    if len(terms) <= MAX_TERMS:
        return dict(terms)
    sums: dict[str, float] = {}
    for name, value in terms.items():
        group = group_of(name)
        sums[group] = sums.get(group, 0.0) + value
    return sums
