"""Parts as values: given as a value or as text, stored as data, rebuilt equal, refused with what there is."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

import poise
from poise import losses
from poise.assign import ATSS, PAA, CenterRegion, DualWeighting, Hungarian, MaxIoU, TaskAligned
from poise.assign.dual_weighting import LinearIoU, overlap_power
from poise.assign.rep_points import NearestPoint
from poise.assign.rf_assigner import ReceptiveFieldCandidates
from poise.cli.ablate import Arguments, planned
from poise.criteria import AnchorCriterion, CenternessCriterion
from poise.models import create_model
from poise.models.exchange import part_text, registries
from poise.models.notation import Part, parse_part
from poise.models.values import build_part, to_part
from poise.recipes import ModelSettings, Recipe, from_dict, to_dict, with_settings
from poise.recipes.short_options import with_options
from poise.sample import IoUBalanced, PositiveNegativeSampler, ohem_sampler
from poise.similarities import GCD, NWD

DENSE: dict[str, Any] = {"backbone": "test_resnet", "channels": 16, "depth": 1}
REGION: dict[str, Any] = {"backbone": "test_resnet", "channels": 16, "hidden": 32}

VALUES = {
    "atss(topk=15)": ATSS(topk=15),
    "atss()": ATSS(),
    "center_region(limits=(24, 60))": CenterRegion(limits=(24, 60)),
    "paa(first=max_iou(positive=0.3, negative=0.2))": PAA(first=MaxIoU(0.3, 0.2)),
    "dual_weighting(location=overlap_power, negative_probability=linear_iou())": DualWeighting(
        location=overlap_power, negative_probability=LinearIoU()
    ),
    "dual_weighting(beta=3.0, candidates=receptive_field_candidates(ratios=(0.5,)))": DualWeighting(
        beta=3.0, candidates=ReceptiveFieldCandidates((0.5,))
    ),
    "max_iou(similarity=nwd(scale=16.0))": MaxIoU(similarity=NWD(16.0)),
    "task_aligned(similarity=gcd(), floor=16.0)": TaskAligned(similarity=GCD(), floor=16.0),
    "task_aligned(topk=7, keep=1)": TaskAligned(7, keep=1),
    "ohem(size=64)": ohem_sampler(64),
    "positive_negative(negatives=iou_balanced(bins=4))": PositiveNegativeSampler(negatives=IoUBalanced(4)),
    "centerness(class_loss=varifocal)": CenternessCriterion(class_loss=losses.varifocal),
}


@pytest.mark.parametrize("text", VALUES)
def test_a_value_becomes_text_and_the_text_an_equal_value(text: str) -> None:
    part = parse_part(part_text(VALUES[text]))
    assert part == parse_part(text)
    kind, known = next((kind, known) for kind, known in registries().items() if part.name in known)
    assert build_part(part, kind, known) == VALUES[text]
    assert to_part(text, kind, known) == part


def test_functions_with_fixed_arguments_are_parts_too() -> None:
    text = part_text(AnchorCriterion(offset_loss=partial(losses.balanced_l1, beta=0.11)))
    assert text == "anchor(offset_loss=balanced_l1(beta=0.11))"
    loss = build_part(parse_part(text), "criterion", registries()["criterion"]).offset_loss
    assert (loss.func, loss.keywords) == (losses.balanced_l1, {"beta": 0.11})


@pytest.mark.parametrize("kind", ["assigner", "sampler", "criterion"])
def test_every_registered_part_has_a_text_that_rebuilds_it(kind: str) -> None:
    known = registries()[kind]
    coder = {"coder": AnchorCriterion().coder}
    for name in known:
        value = build_part(Part(name), kind, known, coder if name in ("yolox", "region", "region_box") else None)
        assert build_part(to_part(value, kind, known), kind, known) == value, name


@pytest.mark.parametrize(
    "name, given, stored, path",
    [
        ("fcos_r18_fpn", {"assigner": ATSS(topk=15)}, "atss(topk=15)", "branch.assigner"),
        ("fcos_r18_fpn", {"assigner": " atss( topk = 15 )"}, "atss(topk=15)", "branch.assigner"),
        ("faster_rcnn_r18_fpn", {"sampler": ohem_sampler(64)}, "ohem(size=64)", "branch.region.sampler"),
        ("fast_rcnn_r18_fpn", {"sampler": ohem_sampler(64)}, "ohem(size=64)", "branch.sampler"),
        (
            "atss_r18_fpn",
            {"criterion": CenternessCriterion(box_weight=3.0)},
            "centerness(box_weight=3.0)",
            "branch.criterion",
        ),
        ("retinanet_r18_fpn", {"criterion": "anchor(offset_weight=2)"}, "anchor(offset_weight=2)", "branch.criterion"),
        ("fast_rcnn_r18_fpn", {"criterion": "region(box_weight=2)"}, "region(box_weight=2)", "branch.criterion"),
    ],
)  # fmt: skip
def test_a_part_is_stored_with_the_model_and_rebuilt(
    name: str, given: dict[str, Any], stored: str, path: str, tmp_path: Path
) -> None:
    kind = next(iter(given))
    model = create_model(name, 3, **given, **(REGION if "rcnn" in name else DENSE))
    assert model.options[kind] == stored
    poise.save(model, tmp_path / "model.pt")
    again = poise.load(tmp_path / "model.pt")
    parts = [model.network, again.network]
    for attribute in path.split("."):
        parts = [getattr(part, attribute) for part in parts]
    assert parts[0] == parts[1]
    assert isinstance(given[kind], str) or parts[0] == given[kind]


def test_bare_names_keep_what_the_model_says() -> None:
    assert create_model("atss_r18_fpn", 3, assigner="atss", topk=5, **DENSE).network.branch.assigner == ATSS(5)
    assert create_model("atss_r18_fpn", 3, assigner="atss()", **DENSE).network.branch.assigner == ATSS()
    model = create_model("faster_rcnn_r18_fpn", 3, sampler="ohem", regions=16, **REGION)
    assert model.network.branch.region.sampler == ohem_sampler(16)


@pytest.mark.parametrize(
    "name, given, message",
    [
        ("fcos", {"assigner": "atss(topkk=15)"}, "assigner 'atss' has no option 'topkk', did you mean 'topk'"),
        ("fcos", {"assigner": "atss(radius=2)"}, "it has topk, inside, divisor"),
        ("fcos", {"assigner": "atss(topk=1.5)"}, "topk=1.5 of assigner 'atss' must be a whole number"),
        ("fcos", {"assigner": "atss(topk=0)"}, "topk=0 of assigner 'atss' must be at least 1"),
        ("fcos", {"assigner": "max_iou(positive=0.2)"}, "0 <= negative <= positive"),
        ("fcos", {"assigner": "atss(15)"}, "options have names"),
        ("fcos", {"assigner": "atss(topk=1"}, "write a name, or a name with options"),
        ("fcos", {"assigner": "atss(topk=1, topk=2)"}, "topk is given twice"),
        ("fcos", {"assigner": "atss(topk=open('x'))"}, "options have names"),
        ("fcos", {"assigner": "atss(topk=1+1)"}, "1 \\+ 1 is not a literal"),
        ("fcos", {"assigner": "paa(first=max_ioo)"}, "neither a literal nor .* part, did you mean 'max_iou'"),
        ("fcos", {"assigner": ATSS}, "is a class: give a value"),
        ("fcos", {"assigner": Hungarian()}, "'hungarian' is not compatible with .*: it matches the queries of a DETR"),
        ("fcos", {"assigner": NearestPoint()}, "NearestPoint has no name. Call poise.register_assigner"),
        ("atss", {"assigner": ATSS(topk=15), "topk": 9}, "topk is given twice: in assigner='atss\\(topk=15\\)'"),
        ("atss", {"assigner": "sim_ota", "topk": 9}, "replaces: write assigner='sim_ota\\(topk=9\\)'"),
        ("fcos", {"assigner": "atss", "radius": 2.0}, "replaces: leave it out"),
        ("atss", {"criterion": "centerness()", "class_loss": "varifocal"}, "replaces: write criterion="),
        ("atss", {"criterion": "yolox"}, "it reads JointDeltaPredictions, the head returns QualityPredictions"),
        ("atss", {"criterion": "dual_weighting"}, "weights of all pairs of priors and objects; give an assigner"),
        ("atss", {"assigner": "dual_weighting", "class_loss": "varifocal"}, "replaces by its own: leave it out"),
        ("dw", {"assigner": "atss", "criterion": "dual_weighting"}, "it returns one object per prior, the losses need"),
        ("retinanet", {"criterion": "fovea"}, "encoded as LogDistances, those of the head as DeltaCoder"),
        ("atss", {"sampler": "ohem"}, "not a two-stage detector"),
        ("faster_rcnn", {"sampler": "ohem(size=8)", "regions": 16}, "size is given twice"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_there_is(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(f"{name}_r18_fpn", 3, **given, **(REGION if "rcnn" in name else DENSE))


def test_recipes_hold_parts_as_text() -> None:
    recipe = Recipe(model=ModelSettings("fcos_r18_fpn", options={"assigner": ATSS(topk=15)}))  # type: ignore[dict-item]
    assert to_dict(recipe)["model"]["options"] == {"assigner": "atss(topk=15)"}
    assert from_dict(to_dict(recipe)) == recipe
    assert with_options(Recipe(model=ModelSettings("fcos_r18_fpn")), {"assigner": ATSS(topk=15)}) == recipe
    with pytest.raises(ValueError, match="no name. Call poise.register_assigner"):
        with_settings(recipe, {"model.options.assigner": NearestPoint()})


def test_variants_of_an_ablation_are_separated_outside_of_brackets() -> None:
    arguments = Arguments("fcos_r18_fpn", vary=("assigner=atss,atss(topk=15, inside=0.1),center_region",))
    runs = planned(arguments).runs(Recipe(model=ModelSettings("fcos_r18_fpn")))
    assigners = [run.recipe.model.options["assigner"] for run in runs]
    assert assigners == ["atss", "atss(topk=15, inside=0.1)", "center_region"]
    assert len({run.folder for run in runs}) == 3
