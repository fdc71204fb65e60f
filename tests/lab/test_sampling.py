"""The sampling figure: its numbers against a direct count, and its command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from poise.cli import main
from poise.lab.sampling import ALL_NEGATIVES, SampledNegatives, draw_negatives, hard_negatives, sampled_negatives
from poise.models import create_model
from poise.models.files import save_model
from poise.sample import TakeAll, random_sampler
from poise.structures import Batch, GroundTruth

BOXES = torch.tensor([[8.0, 8.0, 56.0, 60.0], [40.0, 30.0, 90.0, 90.0]])


def batches(count: int = 2) -> list[Batch]:
    truth = GroundTruth.collate([{"boxes": BOXES, "labels": torch.tensor([0, 1])}] * 2, [(96, 96)] * 2)
    generator = torch.Generator().manual_seed(0)
    return [Batch(torch.randn(2, 3, 96, 96, generator=generator), truth, torch.arange(2)) for _ in range(count)]


def network(name: str = "faster_rcnn_r18_fpn") -> torch.nn.Module:
    torch.manual_seed(0)
    options = {"channels": 16} if "rcnn" not in name else {"channels": 16, "hidden": 32}
    return create_model(name, 2, image_size=96, **options).network.eval()


def test_every_negative_is_counted_and_samplers_choose_among_them() -> None:
    found = sampled_negatives(network(), batches(), {"all": TakeAll(), "few": random_sampler(32)})
    assert found.images == 4
    assert np.array_equal(np.sort(found.overlaps["all"]), np.sort(found.overlaps[ALL_NEGATIVES]))
    assert 4 * 24 <= len(found.overlaps["few"]) <= 4 * 32
    assert set(found.overlaps["few"].tolist()) <= set(found.overlaps[ALL_NEGATIVES].tolist())
    assert all(0 <= values.min() and values.max() < 0.5 for values in found.overlaps.values())


def test_balanced_samples_reach_further_than_random_ones() -> None:
    found = sampled_negatives(network(), batches())
    below = found.fraction_below(0.05)
    assert below["random"] > below["balanced as published"]
    again = sampled_negatives(network(), batches())
    assert all(np.array_equal(values, again.overlaps[name]) for name, values in found.overlaps.items())


def test_hard_negatives_are_those_with_the_highest_loss() -> None:
    negative = torch.tensor([[True] * 8 + [False] * 2, [True] * 2 + [False] * 8])
    loss = torch.tensor([[0.1, 0.9, 0.3, 0.2, 0.8, 0.0, 0.4, 0.5, 5.0, 6.0], [0.2, 0.1, *[9.0] * 8]])
    hard = hard_negatives(negative, loss, 0.25)
    assert hard.nonzero().tolist() == [[0, 1], [0, 4], [1, 0]]
    overlaps = np.array([0.01, 0.04, 0.2, 0.3], dtype=np.float32)
    found = SampledNegatives({"some": overlaps}, 1, {"some": np.array([True, False, True, True])})
    expected = {"of_sample": 0.75, "below_0.05": 1 / 3, "above_0.05": 2 / 3}
    assert found.hard_fractions()["some"] == pytest.approx(expected)
    assert "| some | 75.0 % | 33.3 % | 66.7 % |" in found.hard_table()


def test_fractions_and_figure(tmp_path: Path) -> None:
    values = np.array([0.0, 0.01, 0.07, 0.25, 0.49], dtype=np.float32)
    negatives = SampledNegatives({ALL_NEGATIVES: values, "none": values[:0]}, 1)
    assert negatives.fractions((0, 0.05, 0.1, 0.5)) == {ALL_NEGATIVES: [0.4, 0.2, 0.4], "none": [0.0, 0.0, 0.0]}
    assert negatives.fraction_below() == {ALL_NEGATIVES: 0.4, "none": 0.0}
    assert "| 40.0 % |" in negatives.table()
    path = draw_negatives(negatives, tmp_path / "folder" / "sampling.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_one_stage_models_are_refused() -> None:
    with pytest.raises(ValueError, match="two-stage"):
        sampled_negatives(network("atss_r18_fpn"), [])


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo-data", str(tmp_path / "data"), "--train", "8", "--val", "2", "--size", "128"]) == 0
    model = create_model("libra_faster_rcnn_r18_fpn", 3, image_size=96, channels=16, hidden=32)
    save_model(model, tmp_path / "model.pt")
    capsys.readouterr()
    words = ["sampling", str(tmp_path / "model.pt"), "--data", str(tmp_path / "data"), "--images", "4"]
    assert main([*words, "--out", str(tmp_path / "figure.png"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["images"] == 4
    assert set(printed["below_0.05"]) == {
        ALL_NEGATIVES,
        "random",
        "balanced as published",
        "balanced as in the article",
        "OHEM",
    }
    hard = printed["hard"]
    assert hard["OHEM"]["of_sample"] >= hard["random"]["of_sample"] > 0
    assert all(one["below_0.05"] + one["above_0.05"] == pytest.approx(1) for one in hard.values())
    assert (tmp_path / "figure.png").exists()
    assert main([*words, "--images", "0"]) == 1
