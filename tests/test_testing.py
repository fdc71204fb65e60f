"""The contract suites of ``poise.testing`` notice parts that are broken on purpose."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from poise.assign import ATSS
from poise.criteria import CenternessCriterion
from poise.criteria.varifocal import VarifocalCriterion
from poise.detectors import DenseBranch
from poise.models.catalog import NAMES, Entry
from poise.models.fcos import fcos
from poise.sample import random_sampler
from poise.structures import Assignment, GroundTruth, Predictions, QualityPredictions, Sample
from poise.testing import BrokenContract, check_assigner, check_criterion, check_model, check_sampler
from poise.testing.assigners import CHECKS, Case

WHOLE = ATSS(topk=5)


@dataclass(frozen=True)
class Broken:
    """ATSS with one fault."""

    fault: str

    def __call__(self, predictions: Predictions, truth: GroundTruth) -> Assignment:
        if self.fault == "crowd":  # crowd regions are objects as well
            truth = replace(truth, valid=truth.valid | truth.crowd)
        assignment = WHOLE(predictions, truth)
        if self.fault == "batch":  # the mean over the batch decides
            threshold = assignment.quality.mean()
            return replace(assignment, positive=assignment.positive & (assignment.quality > threshold))
        if self.fault == "nan":  # predictions that are not finite count like others
            finite = replace(predictions, logits=torch.zeros_like(predictions.logits), boxes=predictions.priors.boxes)
            return WHOLE(replace(finite, boxes=finite.boxes.expand_as(predictions.boxes)), truth)
        if self.fault == "padding":  # the number of padded objects enters
            return replace(assignment, quality=assignment.quality / truth.boxes.shape[1])
        if self.fault == "index":  # a sentinel instead of a mask
            return replace(assignment, index=assignment.index.where(assignment.positive, -1))
        if self.fault == "host":
            return replace(assignment, positive=assignment.positive & (float(assignment.quality.max()) > 0))
        if self.fault == "last":  # of two equal objects the last
            mirrored = GroundTruth(
                *(t.flip(1) for t in (truth.boxes, truth.labels, truth.valid, truth.crowd)), truth.sizes
            )
            flipped = WHOLE(predictions, mirrored)
            return replace(flipped, index=truth.boxes.shape[1] - 1 - flipped.index)
        return assignment


@pytest.mark.parametrize(
    "fault, promise",
    [
        ("crowd", "No prior is assigned to a crowd region"),
        ("batch", "does not depend on the other images of the batch"),
        ("nan", "not finite is not positive"),
        ("padding", "More padding of the objects changes nothing"),
        ("index", "Indices point to objects"),
        ("host", "No operation waits for values"),
        ("last", "Of two equal objects the first is taken"),
    ],
)
def test_a_broken_assigner_is_noticed(fault: str, promise: str) -> None:
    with pytest.raises(BrokenContract, match=f"assigner Broken breaks its contract: .*{promise}"):
        check_assigner(Broken(fault), QualityPredictions)


def test_ties_may_go_to_the_last_object_where_that_is_stated() -> None:
    check = next(check for check in CHECKS if check.__name__ == "of_equal_objects_the_first_is_taken")
    check(Case(Broken("last"), ties="last"))
    check(Case(WHOLE))


@dataclass(frozen=True)
class BrokenCriterion(VarifocalCriterion):
    """The varifocal criterion with one fault."""

    fault: str = ""

    def __call__(self, predictions: Predictions, assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
        losses = super().__call__(predictions, assignment, truth)
        if self.fault == "mean":  # NaN without positives
            losses["loss_more"] = predictions.logits[assignment.positive].mean()
        if self.fault == "negatives":  # boxes of negatives
            losses["loss_more"] = predictions.boxes.mean()
        if self.fault == "detached":
            losses["loss_more"] = (1 - predictions.logits.detach().sigmoid()).mean() * predictions.logits.mean()
        return losses


@pytest.mark.parametrize(
    "fault, promise",
    [
        ("mean", "Losses are finite scalars"),
        ("negatives", "Boxes of negatives"),
        ("detached", "equals finite differences in float64"),
    ],
)
def test_a_broken_criterion_is_noticed(fault: str, promise: str) -> None:
    with pytest.raises(BrokenContract, match=promise):
        check_criterion(BrokenCriterion(fault=fault), WHOLE)


@dataclass(frozen=True)
class BrokenSampler:
    """The random sampler with one fault."""

    fault: str
    needs_loss: bool = False

    def __call__(
        self, assignment: Assignment, generator: torch.Generator | None = None, loss: Tensor | None = None
    ) -> Sample:
        if self.fault == "ignored":
            assignment = replace(assignment, ignored=torch.zeros_like(assignment.ignored))
        sample = random_sampler(64)(assignment, None if self.fault == "generator" else generator, loss)
        return replace(sample, index=sample.index[:, :1].expand_as(sample.index)) if self.fault == "twice" else sample


@pytest.mark.parametrize(
    "fault, promise",
    [
        ("ignored", "No ignored prior is selected"),
        ("twice", "no prior twice"),
        ("generator", "The generator alone decides"),
    ],
)
def test_a_broken_sampler_is_noticed(fault: str, promise: str) -> None:
    with pytest.raises(BrokenContract, match=promise):
        check_sampler(BrokenSampler(fault), size=64, positive_fraction=0.25)


class BrokenBranch(DenseBranch):
    """A dense branch whose detections depend on the batch, or with a layer that is never used."""

    fault = ""

    def predict(self, maps: list[Tensor], sizes: Tensor):  # type: ignore[no-untyped-def,override]
        mean = [level - level.mean(0) for level in maps] if self.fault == "batch" else maps
        return super().predict(mean, sizes)


@pytest.mark.parametrize(
    "fault, promise", [("batch", "do not depend on the other images"), ("unused", "Every trained parameter")]
)
def test_a_broken_model_is_noticed(fault: str, promise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def builder(num_classes: int, backbone_weights: None = None) -> nn.Module:
        network = fcos(num_classes, backbone="test_resnet", channels=16, depth=1)
        own = network.branch
        network.branch = BrokenBranch(own.head, own.assigner, own.criterion, own.postprocess)
        network.branch.fault = fault
        if fault == "unused":
            network.extra = nn.Linear(1, 1)
        return network

    monkeypatch.setitem(NAMES, "broken", Entry(builder))
    with pytest.raises(BrokenContract, match=f"model broken breaks its contract: .*{promise}"):
        check_model("broken")


def test_parts_that_keep_their_contracts_pass() -> None:
    check_criterion(CenternessCriterion(), ATSS(5), QualityPredictions)
    check_sampler(random_sampler(64), size=64, positive_fraction=0.25)
    check_model("fcos_r18_fpn", backbone="test_resnet", channels=16, depth=1)
