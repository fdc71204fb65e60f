"""Published checkpoints: nesting, prefixes, class counts, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.parity import checkpoint
from torch import Tensor

from poise.models import create_model
from poise.models.files import save_model
from poise.published import load_published


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return checkpoint("atss_r50")


@pytest.mark.parametrize("nest", ["state_dict", "ema", "model"])
def test_files_with_nested_and_prefixed_weights(nest: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "published.pth"
    torch.save({nest: {f"module.{key}": value for key, value in state.items()}, "meta": {"epoch": 12}}, path)
    model = create_model("atss_r50_fpn")
    report = load_published(model, path)
    assert len(report.loaded) == len(state) and not report.unexpected and not report.missing
    assert torch.equal(model.network.branch.head.classes.bias, state["bbox_head.atss_cls.bias"])


def test_averaged_weights_are_taken() -> None:
    """MMEngine swaps both when it saves: ``state_dict`` is averaged; other projects name the average ``ema``."""
    key = "bbox_head.atss_cls.bias"
    averaged, last = {key: torch.full((80,), 1.0)}, {key: torch.full((80,), 2.0)}
    model = create_model("atss_r18_fpn", channels=32)
    for content in (
        {"state_dict": averaged, "ema_state_dict": {f"module.{key}": last[key]}},
        {"ema": averaged, "model": last},
    ):
        load_published(model, content)
        assert model.network.branch.head.classes.bias.eq(1).all()
        load_published(model, last)


def test_unused_and_unfilled_keys_are_reported(state: dict[str, Tensor]) -> None:
    short = {key: value for key, value in state.items() if "atss_centerness" not in key}
    report = load_published(create_model("atss_r50_fpn"), {**short, "bbox_head.surplus.weight": torch.ones(1)})
    assert report.unexpected == ("bbox_head.surplus.weight",)
    assert set(report.missing) == {"branch.head.centerness.weight", "branch.head.centerness.bias"}
    assert "surplus" in str(report)


def test_another_class_count_is_refused_unless_asked(state: dict[str, Tensor]) -> None:
    model = create_model("atss_r50_fpn", num_classes=3)
    with pytest.raises(ValueError, match="remap_classes"):
        load_published(model, state)
    before = model.network.branch.head.classes.weight.clone()
    report = load_published(model, state, remap_classes=True)
    assert set(report.reinitialized) == {"branch.head.classes.weight", "branch.head.classes.bias"}
    assert torch.equal(model.network.branch.head.classes.weight, before)


def test_a_shape_that_is_no_matter_of_classes_is_always_refused(state: dict[str, Tensor]) -> None:
    wrong = {**state, "bbox_head.atss_reg.weight": torch.zeros(4, 128, 3, 3)}
    with pytest.raises(ValueError, match="atss_reg"):
        load_published(create_model("atss_r50_fpn"), wrong, remap_classes=True)


def test_weights_of_another_model_are_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="none of the"):
        load_published(create_model("atss_r50_fpn"), {"encoder.weight": torch.zeros(2)})


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("harmful-ran"),))  # type: ignore[return-value]


def test_a_file_that_would_run_code_is_refused_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": Harmful()}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="safely"):
        load_published(create_model("atss_r18_fpn", channels=32), tmp_path / "bad.pth")
    assert not (tmp_path / "harmful-ran").exists()


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    model = create_model("atss_r18_fpn", channels=32)
    with pytest.raises(ValueError, match="no such file"):
        load_published(model, tmp_path / "none.pth")
    (tmp_path / "broken.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"broken\.pth"):
        load_published(model, tmp_path / "broken.pth")


def test_a_file_of_poise_is_told_from_a_published_one(tmp_path: Path) -> None:
    model = create_model("atss_r18_fpn", backbone="test_byobnet")
    save_model(model, tmp_path / "best.pt")
    with pytest.raises(ValueError, match=r"best\.pt.*load it without a name"):
        load_published(model, tmp_path / "best.pt")


def test_batch_norms_rest_once_weights_are_in(state: dict[str, Tensor]) -> None:
    """As published: stem and first stage frozen, statistics kept."""
    model = create_model("atss_r50_fpn")
    assert model.train().network.backbone.body.bn1.training
    load_published(model, state)
    body = model.train().network.backbone.body
    assert not body.bn1.training and not body.layer4[0].bn1.training
    assert not body.layer1[0].conv1.weight.requires_grad and body.layer2[0].conv1.weight.requires_grad
    thawed = create_model("atss_r50_fpn", norm_eval=False, frozen_stages=-1)
    load_published(thawed, state)
    assert thawed.train().network.backbone.body.bn1.training
