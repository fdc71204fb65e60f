"""The articles' ablations as options of ``create_model``: each trains a step, and does what it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from poise.models import create_model

SMALL: dict[str, Any] = {"channels": 16, "depth": 1}
BOXES = torch.tensor([[4.0, 6.0, 40.0, 50.0], [20.0, 10.0, 60.0, 30.0]])
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *[("dw", {"bag": bag}) for bag in ("soft_center", "distance", "radius", "topk")],
    *[("dw", {"form": "article", "bag": bag}) for bag in ("soft_center", "radius", "topk")],
    ("dw", {"beta_small": 3.0, "mu_small": 2.0, "gamma1_small": 1.0, "gamma2_small": 3.0}),
    *[("dw", {"negative": kind}) for kind in ("both", "probability", "importance", "neither", "complement")],
    ("dw", {"overlap_function": "linear", "gamma1": 1.0, "gamma2": 1.0}),
    ("dw", {"location": "iou", "beta": 3.0, "mu": 4.0, "mu_total": 4.0}),
    ("dw", {"detach_weights": False, "detach_importance": True}),
    ("dw", {"refine": False}),
    *[("autoassign", {"weights": kind}) for kind in ("detached", "loss")],
    *[("vfnet", {"class_loss": kind}) for kind in ("varifocal", "quality_focal", "focal")],
    *[(family, {"class_loss": "varifocal"}) for family in ("retinanet", "atss")],
    ("vfnet", {"star": False}),
    ("vfnet", {"refine": False}),
    ("vfnet", {"star": False, "refine": False, "preselect": "priors"}),
]


def step(family: str, options: dict[str, Any]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = create_model(f"{family}_mnv3s_fpn", 3, **{**SMALL, **options}).train()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    targets = [
        {"boxes": BOXES, "labels": torch.tensor([0, 2])},
        {"boxes": BOXES[:0], "labels": torch.tensor([]).long()},
    ]
    losses = model.losses(pixels, targets)
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.isfinite().all()), name
    assert len(model.detect(pixels)) == 2
    return {name: loss.detach() for name, loss in losses.items()}


@pytest.mark.parametrize(("family", "options"), OPTIONS, ids=str)
def test_every_option_trains(family: str, options: dict[str, Any]) -> None:
    losses = step(family, options)
    assert all(loss.isfinite() for loss in losses.values())


def test_options_change_what_they_say() -> None:
    plain = step("dw", {})
    for kind in ("probability", "neither", "complement"):  # no box overlaps yet, so the probability is 1 everywhere
        other = step("dw", {"negative": kind})
        assert other["loss_cls_neg"] != plain["loss_cls_neg"] and other["loss_loc"] == plain["loss_loc"]
    twice = step("dw", {"box_weight": 10.0})
    torch.testing.assert_close(twice["loss_loc"], plain["loss_loc"] * 2)
    assert set(step("vfnet", {"refine": False})) == {"loss_cls", "loss_bbox"}


def test_deformable_variants_build_and_train() -> None:
    for family in ("dw", "vfnet"):
        options = {"backbone": "resnet50", "deformable_stages": (5,), "deformable_towers": True}
        assert all(loss.isfinite() for loss in step(family, options).values())


@pytest.mark.parametrize(
    ("family", "option", "value"),
    [
        ("dw", "form", "paper"),
        ("autoassign", "weights", "score"),
        ("dw", "bag", "everything"),
        ("dw", "negative", "none"),
        ("dw", "location", "diou"),
        ("dw", "overlap_function", "cubic"),
        ("vfnet", "class_loss", "hinge"),
        ("atss", "class_loss", "hinge"),
        ("vfnet", "preselect", "all"),
    ],
)
def test_unknown_choices_are_refused(family: str, option: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{option}='{value}': one of"):
        create_model(f"{family}_mnv3s_fpn", 3, **SMALL, **{option: value})


@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [
        ("dw", {"bag_threshold": 0.2}, "bag='soft_center' does not read it"),
        ("dw", {"bag": "topk", "bag_radius": 2.0}, "bag='topk' does not read it"),
        ("dw", {"bag_bounds_negatives": True}, "covers the whole object"),
        ("dw", {"negative": "neither", "gamma2_small": 1.0}, "has no importance within objects"),
        ("libra_faster_rcnn", {"refine": "off", "refine_level": 1}, "refine='off' leaves the pyramid as it is"),
        ("libra_retinanet", {"box_loss": "l1", "l1_beta": 0.5}, "box_loss='l1' has no such parameter"),
        ("faster_rcnn", {"box_loss": "smooth_l1", "l1_alpha": 0.2}, "box_loss='smooth_l1' has no such parameter"),
        ("libra_faster_rcnn", {"iou_bins": 4, "sampler": "random"}, "which sampler='random' replaces: leave it out"),
        ("libra_faster_rcnn", {"neck": "balanced_pyramid"}, "has a balanced feature pyramid already"),
        ("fcos", {"neck": "balanced_pyramid(refine_level=5)"}, "the pyramid has levels 0 to 4"),
        ("fcos", {"neck": "balanced_pyramid(refine='pool')"}, "one of none, conv, non_local"),
    ],
    ids=str,
)
def test_options_that_exclude_each_other_are_refused(family: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        create_model(f"{family}_mnv3s_fpn", 3, channels=16, **options)


def test_numbers_out_of_range_are_refused() -> None:
    wrong = ({"mu": -1.0}, {"gamma2": -1.0}, {"bag": "distance", "bag_threshold": 1.5}, {"bag": "topk", "bag_topk": 0})
    for options in (*wrong, {"gamma2_small": -1.0}):
        with pytest.raises(ValueError, match="="):
            create_model("dw_mnv3s_fpn", 3, **SMALL, **options)
