"""What counts as agreement between a file and its model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from poise.export.compare import FULL, HALF, DetectionMatcher, compare_detections, compare_outputs


def outputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(1, 6, 2, generator=generator) * 50
    return {"boxes": torch.cat((corner, corner + 20), 2), "scores": 0.35 + torch.rand(1, 6, 2, generator=generator) / 2}


def detections() -> dict[str, Tensor]:
    found = outputs()
    return {"boxes": found["boxes"][0], "scores": found["scores"][0, :, 0], "labels": torch.arange(6)}


def test_outputs_that_differ() -> None:
    ours = outputs()
    moved = {"boxes": ours["boxes"] + torch.tensor([0.0, 0.0, 0.3, 0.0]), "scores": ours["scores"] + 0.01}
    seen = compare_outputs(ours, moved, 0.0)
    assert seen.boxes == pytest.approx(0.3, abs=1e-4) and seen.scores == pytest.approx(0.01, abs=1e-5)
    broken = {**ours, "boxes": ours["boxes"] * torch.nan}
    assert not compare_outputs(ours, broken, 0.0).within(FULL)


def test_boxes_count_where_scores_pass_the_threshold_and_the_best_where_none_does() -> None:
    ours = outputs()
    ours["scores"][0, 0] = 0.01
    moved = {**ours, "boxes": ours["boxes"].clone()}
    moved["boxes"][0, 0] += 5
    assert compare_outputs(ours, moved, 0.05).boxes == 0
    assert compare_outputs(ours, moved, 0.95).boxes == pytest.approx(5, abs=1e-4)


def test_detections_that_are_missing() -> None:
    ours = detections()
    assert compare_detections(ours, ours, 0.05, FULL, limit=100).within(FULL)
    fewer = {key: value[:5] for key, value in ours.items()}
    assert compare_detections(ours, fewer, 0.05, FULL, limit=100).unmatched == 1
    assert (
        compare_detections(ours, {key: value[:0] for key, value in ours.items()}, 0.05, FULL, limit=100).unmatched == 6
    )


def test_counterparts_by_class_and_overlap() -> None:
    ours = detections()
    theirs = {**ours, "boxes": ours["boxes"] + 1, "scores": ours["scores"] - 0.04}
    theirs["labels"] = torch.tensor([0, 1, 2, 3, 4, 0])  # the last one has another class
    theirs["scores"][0] = 0.1  # not confident itself, but a counterpart
    found = DetectionMatcher()
    found.add(ours, theirs)
    seen = found.comparison()
    assert seen.compared == 11 and seen.unmatched == 2 and seen.matched_fraction == pytest.approx(9 / 11)
    assert seen.boxes == pytest.approx(1, abs=1e-4) and seen.typical is not None
    assert seen.typical.boxes == pytest.approx(1) and seen.typical.scores == pytest.approx(0.04)
    assert seen.scores == pytest.approx(float(ours["scores"][0]) - 0.1, abs=1e-5)
    assert not seen.within(HALF) and "2 without a counterpart" in str(seen)


def test_counterparts_of_nothing() -> None:
    found = DetectionMatcher()
    found.add({key: value[:0] for key, value in detections().items()}, detections())
    assert found.comparison().compared == 6 and found.comparison().matched_fraction == 0
