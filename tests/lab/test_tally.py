"""Sums of a training step against a slow count, and churn against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poise import lab
from poise.lab.churn import ProbePositives, churn, collect_positives, concatenate_positives, has_persistent_priors
from poise.lab.statistics import Supervision
from poise.lab.tally import add_tallies, summarize, tally
from poise.models import create_model

TARGETS = [
    {"boxes": torch.tensor([[6.0, 8, 70, 60], [40, 30, 90, 90], [50, 50, 62, 64]]), "labels": torch.tensor([0, 1, 1])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
]
SMALL = {"backbone": "test_byobnet", "channels": 16}
MODELS = {
    "atss_r18_fpn": {"depth": 1},
    "dw_r18_fpn": {"depth": 1},
    "faster_rcnn_r18_fpn": {"hidden": 32},
    "dino_r18": {
        "attention_heads": 4,
        "hidden": 32,
        "queries": 20,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "channels": 32,
    },
}


def explained(name: str, images: slice = slice(None)) -> lab.Explanation:
    torch.manual_seed(0)
    model = create_model(name, 3, image_size=96, **{**SMALL, **MODELS[name]}).eval()
    pixels = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    return lab.explain(model, pixels[images], TARGETS[images], seed=3)


@pytest.mark.parametrize("name", MODELS)
def test_sums_of_a_batch_equal_a_slow_count(name: str) -> None:
    for stage_name, stage in explained(name, slice(1)).stages.items():
        slow = Supervision()
        slow.add(stage, np.ones(4), TARGETS[0]["labels"].numpy())
        wanted, found = slow.to_dict(), summarize(tally(stage))
        objects = slow.objects
        assert found["objects"] == 3
        assert found["positives"] == pytest.approx(wanted["positives_per_object"])
        assert found["without_positive"] == pytest.approx(wanted["without_positive"] / 3)
        assert found["positives_small"] == objects["positives"][objects["size"] < 32].mean()
        if stage.on_grid:
            strides = {f"{stride:g}": count for stride, count in slow.positives_by_stride.items()}
            if stage.weights.pairs is None:
                for stride, count in strides.items():
                    assert found[f"positives_stride_{stride}"] == pytest.approx(count / 3)
        counts = np.array(wanted["negatives_by_iou"]["count"], dtype=float)
        bins = [found[f"negatives_{i / 10:.1f}"] for i in range(10)]
        assert bins == pytest.approx((counts / counts.sum()).tolist()), stage_name
        weight = np.array(wanted["negatives_by_iou"]["weight"])
        shares = [found[f"negative_weight_{i / 10:.1f}"] for i in range(10)]
        assert shares == pytest.approx((weight / weight.sum()).tolist(), abs=1e-5)
        if stage.weights.pairs is None and wanted["score_iou_correlation"] is not None:
            assert found["score_iou_correlation"] == pytest.approx(wanted["score_iou_correlation"], rel=1e-4)
        entropies = []
        for number in range(3):
            weights = stage.object_view(0, number).positive.double()
            share = weights[weights > 0] / weights.sum()
            entropies += [-(share * share.log()).sum()] if len(share) else []
        assert found["entropy"] == pytest.approx(float(torch.stack(entropies).mean()), rel=1e-4, abs=1e-9)


def test_sums_of_images_add_up() -> None:
    whole = tally(explained("atss_r18_fpn").stages["dense"])
    parts = add_tallies(tally(explained("atss_r18_fpn", slice(i, i + 1)).stages["dense"]) for i in range(2))
    for name in ("objects", "positives", "without", "pair_n", "stride_8", "negatives_0.0"):
        assert parts[name] == whole[name], name
    nothing = summarize(tally(explained("atss_r18_fpn", slice(1, 2)).stages["dense"]))
    assert nothing["objects"] == 0 and "positives" not in nothing and nothing["negatives_0.0"] == 1


def test_churn_counts_changed_positives() -> None:
    objects = torch.tensor([[0, 0, 10.0], [0, 1, 50.0], [1, 0, 200.0], [1, 1, 5.0]], dtype=torch.float64)
    before = torch.tensor([[0, 0, 7], [0, 0, 8], [0, 1, 9], [1, 0, 3]]).int()
    now = ProbePositives(torch.tensor([[0, 0, 8], [0, 0, 6], [0, 1, 9]]).int(), objects)
    found = churn(before, now)  # two of three changed, none, all; the last object had no positive in either
    assert found == pytest.approx(
        {"churn": (2 / 3 + 0 + 1) / 3, "churn_small": 2 / 3, "churn_medium": 0.0, "churn_large": 1.0}
    )
    assert churn(now.rows, now)["churn"] == 0
    assert churn(before[:0], ProbePositives(now.rows[:0], objects)) == {}


def test_positives_of_batches_and_persistent_priors() -> None:
    stages = explained("dino_r18").stages
    assert [name for name in stages if has_persistent_priors(name, stages[name])] == ["encoder", "queries/1", "queries"]
    rows = collect_positives(stages["queries"], 5).rows
    assert rows[:, 0].tolist() == [5, 5, 5] and sorted(rows[:, 1].tolist()) == [0, 1, 2]
    positions = [int((stages["queries"].index[0] == number).nonzero()) for number in rows[:, 1]]
    assert rows[:, 2].tolist() == positions
    both = concatenate_positives([collect_positives(stages["queries"], 0), collect_positives(stages["queries"], 2)])
    assert churn(both.rows, both)["churn"] == 0 and len(both.objects) == 6
    regions = explained("faster_rcnn_r18_fpn").stages
    assert [name for name in regions if has_persistent_priors(name, regions[name])] == ["rpn"]
    soft = collect_positives(explained("dw_r18_fpn").stages["dense"])
    assert set(soft.rows[:, 0].tolist()) == {0} and len(soft.rows) > 3
