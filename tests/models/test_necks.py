"""The balanced feature pyramid after the pyramid of detectors that do not have one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from poise.models import create_model
from poise.models.files import load_model, save_model

SMALL: dict[str, Any] = {"channels": 16, "image_size": 64}
TARGETS = [
    {"boxes": torch.tensor([[4.0, 6.0, 40.0, 50.0], [20.0, 10.0, 60.0, 30.0]]), "labels": torch.tensor([0, 2])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
]


def pixels() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["fcos_mnv3s_fpn", "yolox_mnv3s_fpn", "faster_rcnn_mnv3s_fpn", "nanodet_plus_m_320"])
def test_a_step_of_any_pyramid_has_finite_gradients(name: str) -> None:
    torch.manual_seed(0)
    options = {"image_size": 64} if name.startswith("nanodet") else SMALL
    model = create_model(name, 3, neck="balanced_pyramid", **options).train()
    torch.stack(list(model.losses(pixels(), TARGETS).values())).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert not parameter.requires_grad or parameter.grad.isfinite().all(), parameter_name  # type: ignore[union-attr]


def test_every_level_gets_the_mean_of_all_at_stride_16(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("fcos_mnv3s_fpn", 3, neck="balanced_pyramid(refine='none')", **SMALL).eval()
    save_model(model, tmp_path / "model.pt")
    model = load_model(tmp_path / "model.pt")
    with torch.no_grad():
        maps = model.network.neck[0](model.network.backbone(pixels()))
        balanced = model.network.neck(model.network.backbone(pixels()))
    assert [one.shape[-1] for one in maps] == [8, 4, 2, 1, 1]
    means = functional.max_pool2d(maps[0], 2) + maps[1]
    for level, repeat in ((2, 2), (3, 4), (4, 4)):
        means = means + maps[level].repeat_interleave(repeat, 2).repeat_interleave(repeat, 3)
    means = means / 5
    torch.testing.assert_close(balanced[0], maps[0] + means.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(balanced[1], maps[1] + means)
    for level, side in ((2, 2), (3, 4), (4, 4)):
        torch.testing.assert_close(balanced[level], maps[level] + functional.max_pool2d(means, side))


def test_models_without_a_pyramid_are_refused() -> None:
    with pytest.raises(ValueError, match="'deformable_detr_r18' has no feature pyramid"), torch.device("meta"):
        create_model("deformable_detr_r18", 3, neck="balanced_pyramid")
    with pytest.raises(ValueError, match="there are balanced_pyramid"):
        create_model("fcos_mnv3s_fpn", 3, neck="bfp", **SMALL)
