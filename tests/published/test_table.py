"""The table of published checkpoints: it fits the catalog, and the originals' key lists fill its models."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from support.parity import GOLDEN
from support.slow import slow_but

from poise.detection_model import DetectionModel
from poise.models import create_model, list_models
from poise.models.catalog import NAMES
from poise.models.options import check_options
from poise.published import load_published
from poise.published.table import HOSTS, LICENSES, Checkpoint, checkpoint_of, checkpoints, left_out, matching

BUILDS = {(one.model, str(one.options)): one for one in checkpoints()}  # one row for each model that is built
KEY_LISTS = {f"{one.keys} in {one.model}": one for one in checkpoints() if one.keys}
FAST = ("nanodet-plus-m_320 in nanodet_plus_m_320", "retinanet_r50 in retinanet_r50_fpn")


def test_rows_name_models_and_options_of_the_catalog() -> None:
    assert {one.model for one in checkpoints()} <= set(list_models())
    for one in checkpoints():
        check_options(one.model, NAMES[one.model].builder, one.options)


def test_rows_are_complete_and_unique() -> None:
    originals = [one.original for one in checkpoints()]
    assert len(originals) == len(set(originals)) == 105
    assert len({one.path for one in checkpoints()}) == 105
    assert not set(originals) & set(left_out()) and len(left_out()) == 24 and all(left_out().values())
    assert set(HOSTS) == set(LICENSES) >= {one.source for one in checkpoints()}
    for one in checkpoints():
        assert 20 < one.box_ap < 70 and all(url.startswith("https://") for url in one.addresses)
        if one.sha256:  # MMDetection ends the name of a file with the first digits of its hash
            assert re.search(rf"-{one.sha256}\.pth$", one.path) and len(one.sha256) == 8
        else:
            assert "hash not known" in one.remarks
        assert bool(one.keys) != ("keys not tested" in one.remarks)


def test_rows_are_those_of_the_collected_facts(shared: Path) -> None:
    facts = {re.sub(r"-[0-9a-f]{8}$", "", one["original"]): one for one in _facts(shared)}
    assert facts.keys() == {one.original for one in checkpoints()} | set(left_out())
    for one in checkpoints():
        fact = facts[one.original]
        assert (one.box_ap, one.sha256) == (fact["box_ap"], fact["sha256_prefix"] or "")
        assert one.addresses[0] == fact["url"] and fact["licence"].split(" (")[0] in one.license


def _facts(shared: Path) -> list[dict[str, str]]:
    facts: list[dict[str, str]] = json.loads((shared / "weights" / "published.json").read_text())
    return facts


def test_the_first_row_of_a_model_is_what_coco_selects() -> None:
    assert checkpoint_of("coco", "vfnet_r50_fpn").original == "vfnet_r50_fpn_ms-2x_coco"
    assert checkpoint_of("vfnet_r50_fpn").original == "vfnet_r50_fpn_ms-2x_coco"
    assert checkpoint_of("vfnet_r50_fpn_1x_coco", "vfnet_r50_fpn").box_ap == 41.6
    for model in {one.model for one in checkpoints()}:
        rows = [one for one in checkpoints() if one.model == model]
        plain = [one for one in rows if not one.options and "not verified" not in one.note]
        assert checkpoint_of("coco", model) is max(plain or rows, key=lambda one: one.box_ap)


def test_patterns_match_models_and_originals() -> None:
    assert {one.model for one in matching("vfnet_*")} >= {"vfnet_r50_fpn", "vfnet_x101_64x4d_dcn_fpn"}
    assert [one.model for one in matching("paa_r50_fpn_1.5x_coco")] == ["paa_r50_fpn"]
    assert len(matching()) == len(checkpoints())


@pytest.mark.parametrize(
    "name, model, message",
    [
        ("vfnet_r50_fpm", None, "no published checkpoint 'vfnet_r50_fpm', did you mean 'vfnet_r50_fpn'"),
        ("coco", "yolox_r50_fpn", "no published checkpoint fits 'yolox_r50_fpn', did you mean '.*_r50_fpn'"),
        ("atss_r50_fpn_1x_coco", "paa_r50_fpn", "is one of the model 'atss_r50_fpn', not of 'paa_r50_fpn'"),
        ("yolox_s_8x8_300e_coco", None, "fits no model of poise: the original's backbone"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name: str, model: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checkpoint_of(name, model)


@pytest.mark.parametrize("case", slow_but(KEY_LISTS, FAST))
def test_key_lists_of_the_originals_fill_the_model(case: str, request: pytest.FixtureRequest) -> None:
    one = KEY_LISTS[case]
    report = load_published(model := _built(one), _tensors(one.keys, request))
    assert not report.unexpected and not report.missing and not report.reinitialized, f"{one.original}: {report}"
    assert len(model.class_names) == 80 and model.class_names[0] == "person"


def _tensors(keys: str, request: pytest.FixtureRequest) -> dict[str, torch.Tensor]:
    folders = [GOLDEN]
    if not (GOLDEN / f"{keys}.keys.json").is_file():
        golden = request.getfixturevalue("shared") / "golden"
        folders = [golden, golden / "layouts"]
    path = next(path for folder in folders if (path := folder / f"{keys}.keys.json").is_file())
    return {key: torch.empty(shape, device="meta") for key, shape in json.loads(path.read_text()).items()}


def _built(one: Checkpoint) -> DetectionModel:
    with torch.device("meta"):
        return create_model(one.model, **one.options)


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted({one.model for one in checkpoints()}))
def test_every_row_builds(model: str) -> None:
    for one in BUILDS.values():
        if one.model == model:
            assert _built(one).num_classes == 80
