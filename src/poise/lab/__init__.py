"""The assignment lab: what every place of a detector was told, shown, measured and compared."""

from poise.lab.explain import Explanation, NothingToExplain, Stage, explain, explain_batch, explanation_of
from poise.lab.views import ImageView, ObjectView

__all__ = [
    "Explanation",
    "ImageView",
    "NothingToExplain",
    "ObjectView",
    "Stage",
    "explain",
    "explain_batch",
    "explanation_of",
]
