"""Every assigner on every dense detector trains a step, with its own criterion or the detector's."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from poise.detection_model import DetectionModel
from poise.detectors import DenseBranch
from poise.models import create_model, list_models
from poise.models.assigners import ASSIGNERS, markdown_table, swap_assigner

SMALL: dict[str, Any] = {"backbone": "test_resnet", "channels": 16, "depth": 1}
FAMILIES = [name.removesuffix("_mnv3s_fpn") for name in list_models("*_mnv3s_fpn")]
PROSE = "<!-- table: made from code, see tests/models/test_assigners.py -->\n"


@lru_cache
def model_of(name: str) -> DetectionModel:
    torch.manual_seed(0)
    return create_model(name, 3, **({"channels": 32} if name.startswith("nanodet") else SMALL))


MODELS = {family: f"{family}_mnv3s_fpn" for family in FAMILIES if "rcnn" not in family}
MODELS |= {"nanodet_plus": "nanodet_plus_m_320"}
SOFT = ("dual_weighting", "rf_assigner", "auto_assign", "free_anchor")


def scene() -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[4.0, 6.0, 40.0, 50.0], [20.0, 10.0, 60.0, 30.0]])
    return pixels, [
        {"boxes": boxes, "labels": torch.tensor([0, 2])},
        {"boxes": boxes[:0], "labels": torch.tensor([]).long()},
    ]


def gradients(model: DetectionModel, pixels: torch.Tensor, targets: list[dict[str, torch.Tensor]]) -> None:
    """A backward pass that reaches every parameter with a finite gradient."""
    model.zero_grad()
    losses = model.losses(pixels, targets)
    torch.stack(list(losses.values())).sum().backward()
    assert all(loss.isfinite() for loss in losses.values())
    for key, parameter in model.named_parameters():
        assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.isfinite().all()), key


@pytest.mark.parametrize("assigner", ASSIGNERS)
@pytest.mark.parametrize("family", MODELS)
def test_every_pair_trains_a_step(family: str, assigner: str) -> None:
    model = deepcopy(model_of(MODELS[family])).train()
    assert isinstance(model.network.branch, DenseBranch)
    swap_assigner(model.network, assigner, MODELS[family])
    pixels, targets = scene()
    gradients(model, pixels, targets)
    torch.optim.SGD(model.parameters(), 1e-3).step()
    if assigner in SOFT:
        gradients(model, pixels, targets[1:] * 2)  # without any object
    else:
        assert all(loss.isfinite() for loss in model.losses(pixels, targets).values())


def test_points_lend_anchors_without_moving_what_they_predict() -> None:
    torch.manual_seed(0)
    own = create_model("fcos_mnv3s_fpn", 3, **SMALL).eval()
    other = create_model("fcos_mnv3s_fpn", 3, assigner="atss", **SMALL).eval()
    other.load_state_dict(own.state_dict())
    pixels, _ = scene()
    for a, b in zip(own.detect(pixels), other.detect(pixels), strict=True):
        assert torch.equal(a["boxes"], b["boxes"])
    maps = other.network.neck(other.network.backbone(pixels))
    priors = other.network.branch.head(maps).priors
    assert torch.equal(priors.boxes[0, :, 2] - priors.boxes[0, :, 0], priors.strides * 8)


def test_a_model_keeps_its_own_assigners_settings() -> None:
    model = create_model("atss_mnv3s_fpn", 3, assigner="atss", topk=5, **SMALL)
    assert model.network.branch.assigner.topk == 5


def test_the_choice_is_an_option_that_rebuilds_the_model() -> None:
    model = create_model("gfl_mnv3s_fpn", 3, assigner="task_aligned", **SMALL)
    assert model.options["assigner"] == "task_aligned"
    again = create_model(model.name, model.num_classes, **model.options)
    assert again.network.branch.assigner == model.network.branch.assigner


def test_unknown_names_and_detectors_without_dense_priors_are_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'sim_ota'"):
        create_model("fcos_mnv3s_fpn", 3, assigner="simota")
    with pytest.raises(ValueError, match="not a dense detector"):
        create_model("faster_rcnn_mnv3s_fpn", 3, assigner="atss")


def table() -> str:
    return markdown_table({family: model_of(name).network for family, name in MODELS.items()})


def test_the_documented_table_is_the_codes(repository: Path) -> None:
    page = (repository / "docs" / "assigners.md").read_text(encoding="utf-8")
    assert page.split(PROSE)[1] == table(), "bring docs/assigners.md up to date: python tests/models/test_assigners.py"


if __name__ == "__main__":
    document = Path(__file__).parents[2] / "docs" / "assigners.md"
    prose = document.read_text(encoding="utf-8").split(PROSE)[0]
    document.write_text(prose + PROSE + table(), encoding="utf-8")
