"""What is trained next, the recipes of all runs, and the sizes of their models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.sources import ROOT

from benchmarks.claims.claims import CLAIMS, LATER, ORDER, Claim, claim_of
from benchmarks.claims.plan import ClaimRun, best_rate, due, final_name, fixed_epochs
from benchmarks.claims.prepare import cards_to_coco
from benchmarks.claims.run import lab_numbers, read_results, write_result
from poise.data import open_data
from poise.models import create_model
from poise.recipes import from_dict, to_dict

RESULTS = ROOT / "docs" / "claims" / "results"
CLASSES = {"bccd": 3, "cards": 6, "scenes": 8}


def every_run(claim: Claim) -> list[ClaimRun]:
    """All runs of a claim: results are made up, stage by stage, until nothing is due."""
    results: dict[str, dict[str, Any]] = {}
    found: list[ClaimRun] = []
    while runs := due(results, [claim]):
        for run in runs:
            results[run.name] = {"val_ap": run.rate, "epochs": run.epochs - (run.variant == claim.compared[0])}
        found += runs
    return found


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.table)
def test_all_runs_of_a_claim(claim: Claim) -> None:
    runs = every_run(claim)
    assert len({run.name for run in runs}) == len(runs)
    finals = [run for run in runs if run.stage == "final"]
    assert len({(run.data, run.epochs) for run in finals}) == len(claim.data), "one number of epochs for all schemes"
    for data in claim.data:
        pilots = {run.variant for run in runs if run.stage == "pilot" and run.data == data}
        assert pilots == set(claim.compared)
        for variant in claim.compared:
            seeds = {run.seed for run in finals if (run.variant, run.data) == (variant, data)}
            assert seeds >= set(claim.seeds[1:])
            assert seeds >= {0} or variant != claim.compared[0], "its pilot is shorter, so seed 0 has a run of its own"
    rates = {run.rate for run in finals}
    assert rates == {max(claim.rates)}, "the made-up results are best at the highest rate"
    for run in runs:
        recipe = run.recipe("data")
        assert from_dict(to_dict(recipe)) == recipe
        assert (recipe.optimizer.lr, recipe.train.seed, recipe.schedule.epochs) == (run.rate, run.seed, run.epochs)
        assert recipe.data.val == "val", "no choice is made on the test split"


@pytest.mark.parametrize("group", LATER, ids=lambda claim: claim.table)
def test_a_later_variant_has_further_seeds_where_it_differs_from_its_base(group: Claim) -> None:
    """Every second variant is made to differ from its base by three points of AP, the others by none."""
    assert group.base is not None
    different = list(group.later)[::2]
    results: dict[str, dict[str, Any]] = {}
    found: list[ClaimRun] = []
    while runs := due(results, [claim_of(group.base), group]):
        for run in runs:
            ap = 0.33 if run.claim == group.number and run.variant in different else 0.3
            results[run.name] = {"val_ap": run.rate, "epochs": run.epochs, "test": {"ap": ap}}
        found += [run for run in runs if run.claim == group.number]
    assert not [run for run in found if run.stage == "pilot"]
    seeds = {name: [run.seed for run in found if run.stage == "final" and run.variant == name] for name in group.later}
    assert seeds == {name: [0, 1, 2] if name in different else [0] for name in group.later}
    assert {run.epochs for run in found if run.stage == "final"} == {claim_of(group.base).limits[0].epochs}
    for run in found:
        assert from_dict(to_dict(run.recipe("data"))) == run.recipe("data")
    bases = set(group.later.values())
    assert bases <= {*group.own, *claim_of(group.base).compared}, "bases have three seeds"


def test_the_order_names_every_claim_on_every_data_set_once() -> None:
    assert sorted(ORDER) == sorted((claim.number, data) for claim in (*CLAIMS, *LATER) for data in claim.data)


def test_stages_wait_for_each_other() -> None:
    claim = Claim(1, ("DW", "ATSS"), ("TOOD",), data=("bccd",), limits=CLAIMS[0].limits[:1])
    results: dict[str, dict[str, Any]] = {}
    assert {run.stage for run in due(results, [claim])} == {"rate"} and len(due(results, [claim])) == 9
    for run in due(results, [claim]):
        if run.variant == "DW":
            results[run.name] = {"val_ap": 0.3 if run.rate == 1e-3 else 0.2}
    assert best_rate(claim, "DW", "bccd", results) == 1e-3 and best_rate(claim, "ATSS", "bccd", results) is None
    pilots = [run for run in due(results, [claim]) if run.stage == "pilot"]
    assert [(run.variant, run.rate) for run in pilots] == [("DW", 1e-3)]
    results[pilots[0].name] = {"epochs": 48}
    assert fixed_epochs(claim, "bccd", results) is None
    for run in due(results, [claim]):
        if run.variant == "ATSS" or run.stage == "rate":
            results[run.name] = {"failed": "diverged"} if run.rate == 2e-3 else {"val_ap": 0.1}
    assert best_rate(claim, "ATSS", "bccd", results) == 1e-3, "a rate that diverges is not chosen"
    [pilot] = [run for run in due(results, [claim]) if run.stage == "pilot"]
    results[pilot.name] = {"epochs": 36}
    finals = due(results, [claim])
    assert {run.epochs for run in finals} == {48}
    assert {(run.variant, run.seed) for run in finals} == {
        ("DW", 1),
        ("DW", 2),
        ("ATSS", 0),
        ("ATSS", 1),
        ("ATSS", 2),
        ("TOOD", 0),
    }
    dw = ClaimRun(1, "final", "DW", "bccd", 0, 1e-3, 48, 4)
    assert final_name(dw, results).endswith("DW/pilot-seed-0"), "the longest pilot has the fixed length"
    assert final_name(finals[0], results) == finals[0].name


def test_schemes_of_poise_follow_one_after_the_other() -> None:
    claim = Claim(1, ("DW",), data=("bccd",), limits=CLAIMS[0].limits[:1], own=("FCOS, balanced", "ATSS, balanced"))
    results: dict[str, dict[str, Any]] = {}
    order: list[tuple[str, str]] = []
    while waiting := due(results, [claim]):
        run = waiting[0]
        order.append((run.variant, run.stage))
        results[run.name] = {"val_ap": 0.1, "epochs": run.epochs, "test": {"ap": 0.1}}
    variants = [variant for variant, _ in order]
    assert list(dict.fromkeys(variants)) == ["DW", "FCOS, balanced", "ATSS, balanced"]
    assert variants == sorted(variants, key=list(dict.fromkeys(variants)).index), "no scheme is returned to"
    assert order.count(("ATSS, balanced", "final")) == 3


def test_results_are_read_by_their_names(tmp_path: Path) -> None:
    write_result(tmp_path, "claim_1/bccd/DW/rate-0.001", {"val_ap": 0.25})
    assert read_results(tmp_path) == {"claim_1/bccd/DW/rate-0.001": {"val_ap": 0.25}}
    assert not list(tmp_path.glob("**/*.part"))


def test_what_the_lab_saw_at_the_end(tmp_path: Path) -> None:
    lines = ["step,source,stage,positives,entropy,score_iou_correlation,negatives_0.0"]
    lines += [f"{k},batch,dense,{k},1.0,,0.5" for k in range(1, 21)] + ["20,probe,dense,99,1.0,,0.5"]
    (tmp_path / "lab.csv").write_text("\n".join(lines) + "\n")
    assert lab_numbers(tmp_path / "lab.csv") == {"dense/positives": 19.5, "dense/entropy": 1.0}
    assert lab_numbers(tmp_path / "none.csv") == {}


def test_cards_become_coco(tmp_path: Path) -> None:
    for split, count in (("train", 8), ("test", 2)):
        folder = tmp_path / "cards" / "images" / split
        folder.mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (40, 30), (number, 0, 0)).save(folder / f"{split}{number}.JPG")
            name = "ace" if number % 2 else "king"
            text = (
                "<annotation><size><width>40</width><height>30</height></size>"
                f"<object><name>{name}</name><bndbox><xmin>4</xmin><ymin>5</ymin><xmax>24</xmax><ymax>15</ymax></bndbox></object></annotation>"
            )
            (folder / f"{split}{number}.xml").write_text(text)
    cards_to_coco(tmp_path / "cards", tmp_path / "coco")
    sets = {split: open_data(tmp_path / "coco", split) for split in ("train", "val", "test")}
    assert {split: len(images) for split, images in sets.items()} == {"train": 6, "val": 2, "test": 2}
    assert sets["train"].class_names == sets["test"].class_names == ("ace", "king")
    truth = sets["val"].to_coco()
    assert [record["file_name"].rpartition("/")[2] for record in truth["images"]] == ["train0.JPG", "train7.JPG"]
    assert [one["bbox"] for one in truth["annotations"]] == [[4, 5, 20, 10]] * 2


def test_the_results_recipes_build_the_models_that_were_trained() -> None:
    sizes: dict[str, int] = {}
    for path in sorted(RESULTS.glob("**/*.json")):
        result = json.loads(path.read_text())
        fields = ("claim", "stage", "variant", "data", "seed", "rate", "epochs", "every")
        run = ClaimRun(**{name: result[name] for name in fields}, precision=result.get("precision", "bf16"))
        assert run.precision == claim_of(run.claim).limits_on(run.data).precision, "one precision on a data set"
        assert run.name == path.relative_to(RESULTS).with_suffix("").as_posix()
        if "failed" in result:
            continue
        model = run.recipe("data").model
        key = repr((model.name, CLASSES[run.data], model.options))
        if key not in sizes:
            with torch.device("meta"):
                built = create_model(model.name, CLASSES[run.data], **model.options)
            sizes[key] = sum(parameter.numel() for parameter in built.parameters())
        assert sizes[key] == result["parameters"], run.name
    assert sizes
