"""What assigners and criteria compute with: values of (object, prior) pairs, whatever the storage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from poise.predictions import Predictions


class Pairs(ABC):
    """Pairs of g objects and N priors of each of B images that matter.

    Values of pairs have the shape (B,g,N) or (P,), or broadcast to it; values of pairs that do not matter are ignored.
    Sums are accumulated in float64, so that they do not depend on the storage.
    """

    @abstractmethod
    def from_objects(self, values: Tensor) -> Tensor:
        """Return the value of each pair's object, from (B,g,...)."""

    @abstractmethod
    def from_priors(self, values: Tensor) -> Tensor:
        """Return the value of each pair's prior, from (1|B,N,...)."""

    @abstractmethod
    def from_classes(self, values: Tensor, labels: Tensor) -> Tensor:
        """Return the value of each pair's prior at the class of its object, from (B,N,C) and labels (B,g)."""

    @abstractmethod
    def from_dense(self, values: Tensor) -> Tensor:
        """Return values of all pairs (B,g,N) as values of these."""

    @abstractmethod
    def to_dense(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Return values of all pairs, (B,g,N), ``fill`` where a pair does not matter."""

    @abstractmethod
    def where(self, mask: Tensor) -> Pairs:
        """Return the pairs whose ``mask`` is True."""

    @abstractmethod
    def or_if_empty(self, mask: Tensor) -> Pairs:
        """Add the pairs of ``mask`` (B,g,N) to objects that have no pair."""

    @abstractmethod
    def sum_by_object(self, values: Tensor) -> Tensor:
        """Return the sum over each object's pairs, (B,g)."""

    @abstractmethod
    def sum_by_prior(self, values: Tensor) -> Tensor:
        """Return the sum over each prior's pairs, (B,N)."""

    @abstractmethod
    def max_by_object(self, values: Tensor) -> Tensor:
        """Return the maximum over each object's pairs, (B,g); -infinity without pairs."""

    @abstractmethod
    def max_by_prior(self, values: Tensor) -> Tensor:
        """Return the maximum over each prior's pairs, (B,N); -infinity without pairs."""

    @abstractmethod
    def argmax_by_prior(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maximum over each prior's pairs and the first of its objects, (B,N); -infinity and 0 without."""

    @abstractmethod
    def topk_by_object(self, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the ``count`` largest values of each object, descending, and their priors, (B,g,min(count,N)).

        Values are not negative; all other priors of an object count as 0. Ties go to the lowest index of the prior.
        """

    @abstractmethod
    def scatter_by_class(self, values: Tensor, labels: Tensor, target: Tensor, reduce: Literal["last", "amin"]) -> None:
        """Write values into ``target`` (B,C,N) at each pair's prior and the class (B,g) of its object, in place.

        Args:
            reduce: with several objects of a class at a prior, the value of the last one, or the minimum, in which
                the value of ``target`` takes part.
        """

    @abstractmethod
    def normalize_by_object(self, values: Tensor, high: float = torch.inf) -> Tensor:
        """Map values from the range of each object, from its minimum to its maximum or ``high``, to [0,1]."""

    @abstractmethod
    def class_scores(self, predictions: Predictions, labels: Tensor) -> Tensor:
        """Return the score of each pair's prior for the class of its object, float32."""
