"""Inspect label assignment: read, show, measure and compare the loss weights of every prior of a detector."""

from poise.lab.explain import Explanation, NoLossWeights, Stage, explain, explain_batch, explain_output
from poise.lab.views import ImageView, ObjectView

__all__ = [
    "Explanation",
    "ImageView",
    "NoLossWeights",
    "ObjectView",
    "Stage",
    "explain",
    "explain_batch",
    "explain_output",
]
